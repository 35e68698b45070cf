"""One submitted annotation: its feedback is saved, and its merged segments are offered as a prediction."""

import logging
from collections.abc import Sequence

from walkcut.errors import LabelStudioError
from walkcut.inference.predictor import Predictor
from walkcut.labelstudio.annotations import annotated_regions
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.predictions import Region, make_prediction
from walkcut.labelstudio.tasks import Submission
from walkcut.learning.annotation_merge import merge_by_annotation
from walkcut.learning.feedback import AnnotatedImage, extract_feedback
from walkcut.storage import ProjectStore

log = logging.getLogger(__name__)


class AnnotationProcessor:
    """Turns annotations into feedback, and into predictions in Label Studio if there is a `client`."""

    def __init__(self, predictor: Predictor, store: ProjectStore, client: LabelStudioClient | None) -> None:
        self._predictor, self._store, self._client = predictor, store, client
        self._pending_offers: set[tuple[str, int]] = set()  # annotations whose merged segments are not in Label Studio

    def process(self, project_id: str, submission: Submission, label_config: str = "") -> None:
        """Save an annotation's feedback and, the first time, offer the segments that it merges.

        The labelling config is the stored one, or Label Studio's, unless given. Raises `WalkcutError`.
        """
        config = label_config or self._store.label_config(project_id) or self._label_config(project_id)
        project = self._predictor.project_from_config(config, self._store.extra_params(project_id))
        images = [self._annotated_image(submission, control) for control in project.controls]
        if not self._store.has_feedback(project_id, submission.annotation_id):
            self._pending_offers.add((project_id, submission.annotation_id))
        feedback = extract_feedback(
            images,
            submission,
            project_id=project_id,
            segmenter_version=self._predictor.segmenter_version,
            source_model_version=self._source_model_version(submission),
        )
        self._store.save_feedback(feedback.to_row())
        self._offer(project_id, submission, merge_by_annotation(images, project.options.min_area))

    def _label_config(self, project_id: str) -> str:
        return self._client.label_config(project_id) if self._client else ""

    def _annotated_image(self, submission: Submission, control: BrushControl) -> AnnotatedImage:
        task = submission.task
        tree = self._predictor.get_tree(task.image_reference(control), task.id)
        return AnnotatedImage(control, tree, annotated_regions(submission.result, control, tree.size))

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
        self, project_id: str, submission: Submission, regions: Sequence[tuple[BrushControl, list[Region]]]
    ) -> None:
        """Add merged segments to Label Studio as a prediction, once for each annotation."""
        offer, task = (project_id, submission.annotation_id), submission.task
        if offer in self._pending_offers and self._client is not None and regions:
            version = f"folded-walkcut-{submission.annotation_id}"
            # An earlier attempt may have succeeded although its answer was lost.
            if version not in self._client.predictions(task.id).values():
                document = make_prediction(task, regions, version).as_json()
                self._client.add_predictions(project_id, [{"task": task.id, **document}])
        self._pending_offers.discard(offer)
