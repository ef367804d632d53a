"""What the survey of paper 44 lists and rivals does not compute: by another library, or by none.

`OTHERS` are one call away in torch or scikit-learn, and are named here because a user may look for them in one place;
`NOT_PROVIDED` belongs to fields (detection, depth, images, generative models) that need more than scores and labels.
`SYNONYMS` are names of the survey and of other libraries for what has another name here. A name that rivals itself comes to
provide leaves the first two tables by itself.
"""

from __future__ import annotations

from rivals.catalogue.entry import Entry, Form, Kind

SYNONYMS: dict[Kind, dict[str, str]] = {
    "loss": {
        "mse": "squared_error",
        "l2": "squared_error",
        "mae": "absolute_error",
        "l1": "absolute_error",
        "pinball": "quantile",
        "bce": "binary_cross_entropy",
        "sparse_cross_entropy": "cross_entropy",
        "categorical_cross_entropy": "cross_entropy",
        "weighted_cross_entropy": "cross_entropy",
        "label_smoothing": "cross_entropy",
        "poly_loss": "poly1_cross_entropy",
        "iou": "jaccard",
        "multiple_negatives_ranking": "in_batch_info_nce",
        "batch_hard_triplet": "in_batch_triplet",
        "bpr": "pairwise_logistic",
    },
    "measure": {
        "mean_squared_error": "mse",
        "root_mean_squared_error": "rmse",
        "mean_absolute_error": "mae",
        "mean_absolute_percentage_error": "mape",
        "r2_score": "r2",
        "mean_pinball_loss": "pinball",
        "accuracy": "classification_rates",
        "specificity": "classification_rates",
        "precision_score": "classification_rates",
        "recall_score": "classification_rates",
        "f1": "f_score",
        "roc_auc_score": "auc",
        "log_loss": "negative_log_likelihood",
        "ece": "expected_calibration_error",
        "wer": "word_error_rate",
        "cer": "character_error_rate",
    },
    "part": {},
}
"""Other names: name looked for -> name here."""

_Row = tuple[str, Kind, Form, tuple[str, ...], str, str, str]
_TORCH, _SKLEARN = "torch.nn.functional.", "sklearn.metrics."

OTHERS: tuple[_Row, ...] = (
    # name, kind, form, tasks, summary, formula, symbol
    (
        "nll",
        "loss",
        "labels",
        ("multiclass",),
        "Negative log likelihood of classes whose log-probabilities are given.",
        "-mean_n log p_n[y_n]",
        _TORCH + "nll_loss",
    ),
    (
        "cosine_embedding",
        "loss",
        "pairs",
        ("metric-learning",),
        "One minus the cosine of pairs that are alike, the cosine above a margin of pairs that are not.",
        "1 - cos (y = 1), max(0, cos - m) (y = -1)",
        _TORCH + "cosine_embedding_loss",
    ),
    (
        "margin_ranking",
        "loss",
        "other",
        ("ranking",),
        "Hinge on the difference of two scores of a pair; over whole lists: `pairwise_hinge_loss`.",
        "max(0, -y (x1 - x2) + m)",
        _TORCH + "margin_ranking_loss",
    ),
    (
        "ctc",
        "loss",
        "other",
        ("generation",),
        "Connectionist temporal classification: a label sequence under all its alignments with the frames.",
        "-log sum over alignments a of y of prod_t p_t(a_t)",
        _TORCH + "ctc_loss",
    ),
    (
        "kl_divergence",
        "loss",
        "other",
        ("multiclass",),
        "Divergence of given log-probabilities from given probabilities; of scores: `listwise_kl_loss`.",
        "sum_k q_k (log q_k - log p_k)",
        _TORCH + "kl_div",
    ),
    (
        "precision_recall_curve",
        "measure",
        "other",
        ("binary",),
        "Precision and recall at every threshold; of several classes, one curve a class.",
        "(precision(t), recall(t)) over the thresholds t",
        _SKLEARN + "precision_recall_curve",
    ),
    (
        "roc_curve",
        "measure",
        "other",
        ("binary",),
        "False and true positive rate at every threshold; the area under it: `pooled_auc`.",
        "(FPR(t), TPR(t)) over the thresholds t",
        _SKLEARN + "roc_curve",
    ),
    (
        "balanced_accuracy_score",
        "measure",
        "other",
        ("binary", "multiclass"),
        "Mean recall of the classes: accuracy as it would be if all classes were of one size.",
        "mean_k TP_k / (TP_k + FN_k)",
        _SKLEARN + "balanced_accuracy_score",
    ),
)
"""Provided by torch or scikit-learn."""

NOT_PROVIDED: tuple[tuple[str, Kind, str], ...] = (
    ("box_iou", "loss", "IoU, GIoU, DIoU and CIoU of boxes (object detection); of sets of labels: `jaccard_loss`."),
    ("yolo", "loss", "The sum of box, objectness and class terms of a one-stage detector."),
    (
        "wasserstein_critic",
        "loss",
        "The critic of a Wasserstein GAN; between distributions: `ordinal_wasserstein_loss`.",
    ),
    ("gan", "loss", "Generator and discriminator losses of adversarial networks."),
    ("contrastive_divergence", "loss", "Training of restricted Boltzmann machines by sampling."),
    ("flow_nll", "loss", "Negative log likelihood of normalising flows."),
    ("perceptual", "loss", "Distance between the features that a fixed image network gives two images."),
    ("scale_invariant_log_error", "loss", "Depth estimation: error of log depth, less its mean."),
    ("ssim", "loss", "Structural similarity of two images."),
    ("photometric", "loss", "Depth from video: difference of an image and its neighbour warped to it."),
    ("disparity_smoothness", "loss", "Depth: gradients of disparity, less where the image has edges."),
    ("left_right_consistency", "loss", "Stereo depth: left and right disparity must agree."),
    ("edge", "loss", "Difference of the gradients of two images."),
    ("minimum_reprojection", "loss", "Depth from video: the best of several warped neighbours."),
    ("scale_shift_invariant", "loss", "Depth (SSI): error after the best scale and shift."),
    ("meteor", "measure", "Match of two texts by words, stems and synonyms; needs synonym data."),
    ("detection_average_precision", "measure", "AP and AR of detected boxes at thresholds of overlap."),
    ("boundary_f1", "measure", "F1 of the contours of two segmentations."),
    ("mask_average_precision", "measure", "AP of segmented instances."),
    ("panoptic_quality", "measure", "Quality of joint instance and class segmentation (PQ)."),
    ("absolute_relative_error", "measure", "Depth: mean |e| / y."),
    ("rmse_log", "measure", "Depth: root mean squared error of log depth."),
    ("delta_accuracy", "measure", "Depth: share of points whose ratio to the truth is below 1.25^k."),
    ("log10_error", "measure", "Depth: mean error of log10 depth."),
    ("whdr", "measure", "Depth: weighted disagreement with human ordinal judgements."),
    ("psnr", "measure", "Peak signal-to-noise ratio of an image."),
    ("inception_score", "measure", "Quality of generated images by a fixed classifier."),
    ("frechet_inception_distance", "measure", "Distance of generated to real images in a network's features (FID)."),
)
"""Listed by the survey, out of this library's scope."""


def outside_entries(taken: set[tuple[Kind, str]]) -> list[Entry]:
    """Return the entries of both tables, save what rivals provides under the same kind and name."""
    provided = [
        Entry(
            name=name,
            kind=kind,
            form=form,
            tasks=tasks,
            summary=summary,
            formula=formula,
            symbol=symbol,
            papers=(44,),
            provider="torch" if symbol.startswith(_TORCH) else "scikit-learn",
        )
        for name, kind, form, tasks, summary, formula, symbol in OTHERS
    ]
    listed = [
        Entry(name=name, kind=kind, summary=summary, papers=(44,), provider="", status="not provided")
        for name, kind, summary in NOT_PROVIDED
    ]
    return [entry for entry in [*provided, *listed] if (entry.kind, entry.name) not in taken]
