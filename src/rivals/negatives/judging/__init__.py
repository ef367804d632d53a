"""Judges say how relevant a candidate is; filters act on it; agreement with people says what a judge is worth."""

from rivals.negatives.judging.agreement import Agreement, agreement_with_labels, judge_agreement
from rivals.negatives.judging.cascade import Cascade, Cleaned, with_relabelled
from rivals.negatives.judging.cascade_report import CascadeReport, Change, Stage
from rivals.negatives.judging.filters import JudgeThreshold, SoftTargets, Verify
from rivals.negatives.judging.judges import Judge, LabelJudge, ScoreJudge, Verdicts, judge_positives, judged
from rivals.negatives.judging.prompted import JUDGE_PROMPTS, GradedJudge, ListJudge, YesNoJudge

__all__ = [
    "JUDGE_PROMPTS",
    "Agreement",
    "Cascade",
    "CascadeReport",
    "Change",
    "Cleaned",
    "GradedJudge",
    "Judge",
    "JudgeThreshold",
    "LabelJudge",
    "ListJudge",
    "ScoreJudge",
    "SoftTargets",
    "Stage",
    "Verdicts",
    "Verify",
    "YesNoJudge",
    "agreement_with_labels",
    "judge_agreement",
    "judge_positives",
    "judged",
    "with_relabelled",
]
