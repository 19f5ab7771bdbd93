"""Condition types and reasons: the only place where they are spelled.

A condition's `type` and `reason` are API: people alert on them and GitOps tools read them. Messages are for people
and are written where the fact is known. `Ready`, `Reconciling` and `Stalled` follow kstatus; the others are Anneal's own.
No code branches on `phase`, which is derived from conditions for people.
"""

from enum import StrEnum


class ConditionType(StrEnum):
    """What is asserted, each owned by one step of the reconcile."""

    ACCEPTED = "Accepted"
    DATA_READY = "DataReady"
    ADMITTED = "Admitted"
    ROLLOUT_READY = "RolloutReady"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"


class Reason(StrEnum):
    """Why a condition is what it is. Grouped by the condition that uses it first."""

    # Accepted
    VALID = "Valid"
    INVALID_SPEC = "InvalidSpec"
    UNKNOWN_POOL = "UnknownPool"
    NO_STORAGE = "NoStorage"
    STORAGE_NOT_SHARED = "StorageNotShared"
    OUTPUT_IN_USE = "OutputInUse"
    SOURCE_JOB_FAILED = "SourceJobFailed"
    DOES_NOT_FIT_POOL = "DoesNotFitPool"
    UNKNOWN_QUEUE = "UnknownQueue"
    QUEUE_LACKS_RESOURCE = "QueueLacksResource"
    UNKNOWN_PRIORITY_CLASS = "UnknownPriorityClass"
    # DataReady
    PREPARING = "Preparing"
    PREPARED = "Prepared"
    PREPARED_BY_ANOTHER = "PreparedByAnother"
    PREPARE_FAILED = "PrepareFailed"
    PREPARED_DATA_STALE = "PreparedDataStale"
    WAITING_FOR_JOB = "WaitingForJob"
    MEMORY_DOES_NOT_FIT = "MemoryDoesNotFit"
    # Admitted
    NOT_QUEUED = "NotQueued"
    WAITING_FOR_KUEUE = "WaitingForKueue"
    WAITING_FOR_QUOTA = "WaitingForQuota"
    WAITING_FOR_CHECKS = "WaitingForChecks"
    QUOTA_ADMITTED = "QuotaAdmitted"
    EVICTED = "Evicted"
    BACKING_OFF = "BackingOff"
    DEACTIVATED = "Deactivated"
    # RolloutReady
    ROLLOUT_STARTING = "RolloutStarting"
    ROLLOUT_SERVING = "RolloutServing"
    ROLLOUT_DEGRADED = "RolloutDegraded"
    ROLLOUT_FAILED = "RolloutFailed"
    ROLLOUT_STOPPED = "RolloutStopped"
    # waiting, for any kind of pod
    WAITING_FOR_CLAIM = "WaitingForClaim"
    WAITING_FOR_SECRET = "WaitingForSecret"
    WAITING_FOR_CONFIG_MAP = "WaitingForConfigMap"
    WAITING_FOR_IMAGE = "WaitingForImage"
    WAITING_FOR_NODE = "WaitingForNode"
    WAITING_FOR_ENGINE = "WaitingForEngine"
    NAME_TAKEN = "NameTaken"
    POD_REJECTED = "PodRejected"
    # Running
    STARTING = "Starting"
    TRAINING = "Training"
    PROGRESS_UNKNOWN = "ProgressUnknown"
    SCHEDULING_TIMEOUT = "SchedulingTimeout"
    QUEUED = "Queued"
    SUSPENDED = "Suspended"
    SUSPENDING = "Suspending"
    RETRYING = "Retrying"
    NOT_STARTED = "NotStarted"
    ENDED = "Ended"
    # Failed, Succeeded
    COMPLETED = "Completed"
    USER_ERROR = "UserError"
    OUT_OF_MEMORY = "OutOfMemory"
    RETRIES_EXHAUSTED = "RetriesExhausted"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    IN_PROGRESS = "InProgress"


class DataReason(StrEnum):
    """Why `status.dataset.warnings` warns."""

    BAD_ROWS_DROPPED = "BadRowsDropped"
    MASKED_ROWS_DROPPED = "MaskedRowsDropped"
    ANSWERS_CUT_OFF = "AnswersCutOff"
    LONG_ROWS_DROPPED = "LongRowsDropped"
    EVALUATION_ROWS_DROPPED = "EvaluationRowsDropped"
    TRAINING_ROWS_IN_EVALUATION = "TrainingRowsInEvaluation"
    ROWS_TRUNCATED = "RowsTruncated"
    EVALUATION_ROWS_TRUNCATED = "EvaluationRowsTruncated"
    DUPLICATE_ROWS = "DuplicateRows"
    FEW_TOKENS_TRAINED = "FewTokensTrained"
    COLUMNS_UNREAD = "ColumnsUnread"
    PIECES_DIFFER = "PiecesDiffer"
    PROMPT_MERGES = "PromptMerges"
    UNBALANCED = "Unbalanced"
    SPECIAL_TOKENS_IN_TEXT = "SpecialTokensInText"
    END_NOT_TRAINED = "EndNotTrained"
    START_TOKEN_TWICE = "StartTokenTwice"
    TURN_LEFT_OUT = "TurnLeftOut"
    TOOLS_UNREAD = "ToolsUnread"
    TOOL_CALLS_UNREAD = "ToolCallsUnread"
    REASONING_UNREAD = "ReasoningUnread"
    OTHER_TEMPLATE = "OtherTemplate"
    OTHER_PROMPT = "OtherPrompt"
    PACKING_OFF = "PackingOff"


class Phase(StrEnum):
    """One word for people, derived from the conditions."""

    PENDING = "Pending"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    STARTING = "Starting"
    RUNNING = "Running"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Outcome(StrEnum):
    """How an attempt ended; which of them cost a retry is the operator's policy."""

    SUCCEEDED = "Succeeded"
    USER_ERROR = "UserError"
    OUT_OF_MEMORY = "OutOfMemory"
    PREEMPTED = "Preempted"
    EVICTED = "Evicted"
    NODE_LOST = "NodeLost"
    INFRASTRUCTURE = "Infrastructure"
    SUSPENDED = "Suspended"
    DEADLINE_EXCEEDED = "DeadlineExceeded"
    PREPARED_DATA_STALE = "PreparedDataStale"
