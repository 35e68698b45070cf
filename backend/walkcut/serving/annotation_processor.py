"""One submitted annotation: its feedback is saved, and its merged segments are offered as a prediction."""

import logging
from collections.abc import Sequence
from functools import partial

from walkcut.errors import LabelStudioError, RequestError
from walkcut.inference.predictor import Predictor, for_each_image
from walkcut.inference.project import Project
from walkcut.labelstudio.annotations import is_annotated, read_regions, unread_controls
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.predictions import Region, make_prediction
from walkcut.labelstudio.tasks import Submission, TaskImage, read_submission
from walkcut.learning.annotation_merge import merge_by_annotation
from walkcut.learning.feedback import AnnotatedImage, extract_feedback
from walkcut.learning.outline_fit import fit_outline
from walkcut.storage import Attempt, ProjectStore

log = logging.getLogger(__name__)


class AnnotationProcessor:
    """Turns annotations into feedback, and into predictions in Label Studio if there is a `client`."""

    def __init__(self, predictor: Predictor, store: ProjectStore, client: LabelStudioClient | None) -> None:
        self._predictor, self._store, self._client = predictor, store, client

    def process(self, attempt: Attempt) -> None:
        """Save an annotation's feedback and, unless that was done, offer the segments that it merges.

        An image that fails is learned from at a later attempt, the others now. Raises `WalkcutError`; feedback that is
        saved by then stays.
        """
        row = attempt.row
        submission = read_submission(row.submission.get("task"), row.submission.get("annotation"))
        project = self._project(row.project_id)
        task_images = submission.task.images(project.image_tags)
        found = for_each_image(task_images, partial(self._annotated_image, submission))
        images = [image for _, image in found.require_any()]
        if names := unread_controls(submission.result, task_images):
            log.warning(
                "annotation %d: regions of %s are not learned from, as they are on no image of the labelling config",
                submission.annotation_id,
                ", ".join(names),
            )
        feedback = extract_feedback(
            images,
            submission,
            project_id=row.project_id,
            segmenter_version=self._predictor.tree_service.version,
            source_model_version=self._source_model_version(submission),
        )
        self._store.annotations.save_feedback(row, feedback.segmenter_version, feedback.labels, feedback.to_json())
        if not attempt.is_offered:
            self._offer(row.project_id, submission, merge_by_annotation(images, project.options.min_area))
        for image, error in found.failures:
            if is_annotated(submission.result, image):
                raise error

    def _annotated_image(self, submission: Submission, image: TaskImage) -> AnnotatedImage:
        tree = self._predictor.get_tree(image.reference, submission.task.id)
        regions, errors = read_regions(submission.result, image, tree.size)
        if errors:
            message = "annotation %d: %d regions cannot be read and are not learned from, the first: %s"
            log.warning(message, submission.annotation_id, len(errors), errors[0])
        return AnnotatedImage(image, tree, [fit_outline(region, tree) for region in regions])

    def _project(self, project_id: str) -> Project:
        """Return a project by its stored labelling config, else by Label Studio's."""
        config = self._store.label_config(project_id)
        if not config and self._client:
            config = self._client.label_config(project_id)
        if not config:
            raise RequestError(
                f"the labelling config of project {project_id} is not known: open the project in Label Studio, or set "
                "LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY"
            )
        return self._predictor.project_from_config(config, self._store.extra_params(project_id))

    def _source_model_version(self, submission: Submission) -> str:
        """Return the model version of the prediction that the annotation was started from; empty if unknown."""
        if self._client is None or submission.parent_prediction is None:
            return ""
        try:
            return self._client.prediction_version(submission.parent_prediction)
        except LabelStudioError as error:
            log.info("the prediction that annotation %d started from is unknown: %s", submission.annotation_id, error)
            return ""

    def _offer(
        self, project_id: str, submission: Submission, regions: Sequence[tuple[TaskImage, list[Region]]]
    ) -> None:
        """Add merged segments to Label Studio as a prediction."""
        if self._client is None or not regions:
            return
        task, version = submission.task, f"merged {submission.annotation_id}"
        # An earlier attempt may have succeeded although its answer was lost.
        if version not in self._client.predictions(task.id).values():
            document = make_prediction(regions, version).as_json()
            self._client.add_predictions(project_id, [{"task": task.id, **document}])
