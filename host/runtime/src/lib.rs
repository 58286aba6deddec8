//! The loop of Amends: load, decide, append, dispatch.
//!
//! Sagas are spread over workers by their id. A worker is one task that owns its live sagas in
//! memory; nothing else touches them, so there is no lock on the way of a saga. Everything that
//! happens to a saga (a start, an outcome, a time, an operator's wish) reaches its worker as a
//! message, is decided by the engine, appended to the store together with what it leads to, and
//! only then acted upon. A saga has at most one append under way; what happens meanwhile waits
//! and goes into the next one.
//!
//! Deliberately absent: a second path for recovery (a loaded saga is ticked like any other),
//! state that is not in the event log, retries that the engine does not know of.

mod abandoned;
mod access;
mod action;
mod archiver;
mod audit;
mod breakers;
mod budget;
mod definitions;
mod deploy;
mod dispatch;
mod due;
mod erasure;
mod error;
mod event_rules;
mod evidence;
mod exposure;
mod faults;
mod gauges;
mod host;
mod limits;
mod live;
mod loader;
mod marks;
mod message;
mod namespaces;
mod owner;
mod personal_alone;
mod plugin_state;
mod ports;
mod principal;
mod recovery;
mod rehearse;
mod retention;
mod room_key;
mod rooms;
mod saga_state;
mod schedules;
mod serving;
mod shared;
mod stall;
mod start_keys;
mod start_rate;
mod state_cache;
mod stored_form;
mod stuck;
mod traces;
mod unseal;
mod worker;

pub use abandoned::Exposure;
pub use access::{
    ADMIN_TOKEN, AccessSettings, Holder, NewToken, PeerNetwork, Permission, Permissions,
    ProxySettings, Revoked, Role, TOKEN_NAME_BYTES_MAX, TOKENS_MAX, Token, TokenError, TokenState,
    TokensError,
};
pub use amends_registry::now;
// What the methods of a host take and return of the store.
pub use amends_store::{
    ArchiveError, Backup, BackupError, BackupSummary, Cursor, DeadLetter, DigestPart, FailureQuery,
    FailureText, Fatal, GroupBy, HostInfo, IdPart, IndexCondition, Obstacle, RebuildError,
    RebuildPlace, RebuildSlice, SagaGroups, SagaQuery, SagaRow, ShardOwner, StoreError,
    StoreHealth, StoreSurvey, StoredEvent, Stream, Tombstone,
};
pub use archiver::ArchivePass;
pub use audit::{
    AUDIT_TARGET_BYTES_MAX, AuditCheck, AuditEntry, AuditError, AuditEvent, AuditFact,
    AuditRecorded, AuditRefused, check_audit,
};
// What the methods of a host take and return of subscriptions.
pub use amends_keys::{Erasure, KeyError, Keys};
pub use amends_subscriptions::{
    CLOUD_EVENT, CLOUD_EVENTS, CloudEvent, EventFilter, IncomingError, IncomingEvent, NamedEvent,
    SOURCE_DEFAULT, SignatureHeaders, SubscriptionSettings, SubscriptionStatus, TypePattern,
    verify as verify_signature,
};
pub use breakers::settings::{BreakerInfo, BreakerSettings, ByHand, OnOpen, RateSettings};
pub use deploy::{DeployError, DeployRequest, Deployed, FoundFlaw, Impact, Unreadable};
pub use erasure::{UndoNeed, WaitingSaga};
pub use error::{
    ArchivePassError, BreakerError, OperateError, OwnerError, RuntimeError, StartError,
};
pub use event_rules::{
    EVENT_KEY_PREFIX, EventCounts, EventEffect, EventError, EventOrigin, EventPayload, EventRule,
    EventRuleStatus, EventSignal, EventStart, EventsError, SignalTarget, is_event_tag,
};
pub use evidence::{EvidenceKey, EvidenceKeyError, Signers, unencrypted_secret_key};
pub use exposure::ExposureError;
pub use faults::Faults;
pub use host::{
    Erased, EventTaken, Host, HostShards, ImportError, ImportEvent, Imported, NamedLogPage,
    PersonalState, Planned, RuntimeConfig, SagaImport, StartRequest, may_look_again,
};
pub use limits::{
    CALLS_MAX, LIVE_BYTES_MAX_DEFAULT, NAMESPACES_MAX, START_KEY_BYTES_MAX, STARTS_WAITING_MAX,
    TAG_BYTES_MAX,
};
pub use namespaces::{DEFAULT_NAMESPACE, Namespaces};
pub use plugin_state::{StateError, StateWrite};
pub use principal::{Principal, Via};
pub use recovery::{Quarantined, import};
pub use rehearse::{
    Difference, REHEARSAL_SAGAS_DEFAULT, REHEARSAL_SAGAS_MAX, REHEARSAL_TIME_MAX, Rehearsal,
    RehearsalGroup, RehearseError, Unfinished,
};
pub use retention::Retention;
pub use room_key::RoomKey;
pub use saga_state::{SagaState, Started};
pub use schedules::{
    CatchUp, Overlap, PatternError as SchedulePatternError, SCHEDULE_TAG, SCHEDULED_AT,
    SchedulePattern, ScheduleSettings, ScheduleStatus,
};
pub use stall::{Stall, StallReason, Stuck};
pub use start_keys::is_reserved_key;
pub use start_rate::StartRateSettings;
pub use state_cache::with_state_cache;
pub use traces::{
    LINK_AFTER_DEFAULT, RequestAnswer, RequestSpan, SampleRates, ServedRequest, TraceRules,
    TraceSettings,
};
