"""What the survey of paper 44 lists and rivals does not compute: by another library, or by none.

`OTHERS` are one call away in torch or scikit-learn, and are named here because a user may look for them in one place;
`NOT_PROVIDED` belongs to fields (detection, depth, images, generative models) that need more than scores and labels.
`SYNONYMS` are names of the survey and of other libraries for what has another name here. A name that rivals itself comes to
provide leaves the first two tables by itself.
"""

from __future__ import annotations

from rivals.catalogue.entry import Entry, Form, Kind

SYNONYMS: dict[str, str] = {
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
}
"""Other names of losses: name looked for -> name here."""

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
        "mean_squared_error",
        "measure",
        "targets",
        ("regression",),
        "Mean squared error.",
        "mean e^2",
        _SKLEARN + "mean_squared_error",
    ),
    (
        "root_mean_squared_error",
        "measure",
        "targets",
        ("regression",),
        "Root of the mean squared error (RMSE), in the units of the target.",
        "sqrt(mean e^2)",
        _SKLEARN + "root_mean_squared_error",
    ),
    (
        "mean_absolute_error",
        "measure",
        "targets",
        ("regression",),
        "Mean absolute error (MAE): large errors count no more than their size.",
        "mean |e|",
        _SKLEARN + "mean_absolute_error",
    ),
    (
        "mean_absolute_percentage_error",
        "measure",
        "targets",
        ("regression",),
        "Mean absolute error as a share of the target (MAPE); huge where a target is near 0.",
        "mean |e / y|",
        _SKLEARN + "mean_absolute_percentage_error",
    ),
    (
        "r2_score",
        "measure",
        "targets",
        ("regression",),
        "Share of the target's variance that is explained; not defined for a constant target.",
        "1 - sum e^2 / sum (y - mean y)^2",
        _SKLEARN + "r2_score",
    ),
    (
        "mean_pinball_loss",
        "measure",
        "targets",
        ("regression",),
        "Quantile loss as a measure; with gradient: `quantile_loss`.",
        "mean max(q e, (q - 1) e)",
        _SKLEARN + "mean_pinball_loss",
    ),
    (
        "confusion_matrix",
        "measure",
        "labels",
        ("binary", "multiclass"),
        "How often class i was called class j.",
        "M_ij = number of examples of class i that were predicted as j",
        _SKLEARN + "confusion_matrix",
    ),
    (
        "accuracy_score",
        "measure",
        "labels",
        ("binary", "multiclass"),
        "Share of right predictions; misleading where classes are unequal.",
        "(TP + TN) / N",
        _SKLEARN + "accuracy_score",
    ),
    (
        "precision_score",
        "measure",
        "labels",
        ("binary", "multiclass", "multilabel"),
        "Share of the predicted positives that are right; with pos_label=0 the negative predictive value.",
        "TP / (TP + FP); FDR = 1 - precision; NPV = TN / (TN + FN)",
        _SKLEARN + "precision_score",
    ),
    (
        "recall_score",
        "measure",
        "labels",
        ("binary", "multiclass", "multilabel"),
        "Share of the positives that were found (TPR); with pos_label=0 the specificity.",
        "TP / (TP + FN); specificity = TN / (TN + FP); FPR = 1 - specificity",
        _SKLEARN + "recall_score",
    ),
    (
        "f1_score",
        "measure",
        "labels",
        ("binary", "multiclass", "multilabel"),
        "Harmonic mean of precision and recall of hard predictions; average= chooses micro or macro.",
        "2 TP / (2 TP + FP + FN)",
        _SKLEARN + "f1_score",
    ),
    (
        "precision_recall_curve",
        "measure",
        "labels",
        ("binary",),
        "Precision and recall at every threshold; of several classes, one curve a class.",
        "(precision(t), recall(t)) over the thresholds t",
        _SKLEARN + "precision_recall_curve",
    ),
    (
        "roc_auc_score",
        "measure",
        "labels",
        ("binary", "multiclass"),
        "Area under the ROC curve of a pool of examples; multi_class= chooses one-vs-rest or one-vs-one.",
        "probability that a positive scores above a negative",
        _SKLEARN + "roc_auc_score",
    ),
)
"""Provided by torch or scikit-learn."""

NOT_PROVIDED: tuple[tuple[str, Kind, str], ...] = (
    ("box_iou", "loss", "IoU, GIoU, DIoU and CIoU of boxes (object detection); of sets of labels: `jaccard_loss`."),
    ("yolo", "loss", "The sum of box, objectness and class terms of a one-stage detector."),
    ("wasserstein_critic", "loss", "The critic of a Wasserstein GAN; between distributions: `ordinal_wasserstein_loss`."),
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
