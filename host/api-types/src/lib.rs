//! The JSON that the API of Amends takes and gives, as plain structs.
//!
//! The host writes what a client reads, and the other way round, so every struct can be both. Names,
//! order and absence of fields are the contract of the API: `tests/wire.rs` keeps them. A `…View` is an
//! answer, an `…Item` one of a list in an answer, a `…Body` is what a request brings.
//!
//! Deliberately absent: a web server, the runtime and the store. The crate `amends-api` makes these
//! structs of what those know.

mod audit;
mod breakers;
mod bundle;
mod definitions;
mod deploy;
mod duration;
mod erasures;
mod events;
mod evidence;
mod exposure;
mod health;
mod hosts;
mod on;
mod orders;
mod page;
mod plugin_state;
mod plugins;
mod problem;
mod public_url;
mod rehearsal;
mod sagas;
mod schedules;
mod signals;
mod start;
mod steps;
mod store;
mod subscriptions;
mod tokens;
mod undo_plan;
mod why;
mod words;

pub use audit::{AuditCheckView, AuditView};
pub use breakers::{BreakerRateView, BreakerView, CloseBody, OpenBody};
pub use bundle::{
    BUNDLE_COMPONENTS_BYTES_MAX, BUNDLE_FORMAT, BUNDLE_IMPORT_BYTES_MAX, BundleBlob,
    BundleComponent, BundleDigest, BundleEvent, BundleHead, ImportedView,
};
pub use definitions::DefinitionView;
pub use deploy::{DeployView, DeployedView, FlawView, MisfitView, UnreadableView};
pub use duration::{DurationError, parse_duration};
pub use erasures::{ErasureBody, ErasureView, ErasureWaitItem, PersonalView};
pub use events::EventView;
pub use evidence::{
    EVIDENCE_FORMAT, EVIDENCE_LINE_BYTES_MAX, EvidenceChain, EvidenceCheck, EvidenceComponent,
    EvidenceFound, EvidenceHead, EvidenceLine, EvidenceMisfit, EvidenceSeal,
};
pub use exposure::{EffectView, ExposureItem};
pub use health::{AliveView, ReadyView, WarningView};
pub use hosts::{HostItem, HostView};
pub use on::{EventRuleView, EventTakenItem, EventsTakenView};
pub use orders::OperatorBody;
pub use page::{LIMIT_DEFAULT, LIMIT_MAX, Page};
pub use plugin_state::{STATE_IMPORT_BYTES_MAX, StateImportLine, StateImported, StateItem};
pub use plugins::{
    ActivationView, CallCountsView, CanaryEndView, CanaryView, PluginView, PromoteBody,
    RejectionView, RollbackBody,
};
pub use problem::Problem;
pub use public_url::{PublicUrl, PublicUrlError};
pub use rehearsal::{
    DifferenceGroupView, DifferenceView, LeftOutView, RehearsalView, UnfinishedView,
};
pub use sagas::{NoteView, ParentView, SagaCounts, SagaGroupItem, SagaItem, SagaView};
pub use schedules::ScheduleView;
pub use signals::{SignalBody, SignalTaken};
pub use start::{BatchAnswer, StartBody};
pub use steps::{ByHandView, ErrorView, OmittedView, StepView};
pub use store::{
    ArchiveBody, ArchivePassView, ArchivedCountView, BACKUP_HEADER, BackupView, GrowthView,
    OldestSagaView, RebuildBody, RebuildUnreadableItem, RebuildView, StoreEventsItem,
    StoreMonthItem, StoreSagasItem, StoreView,
};
pub use subscriptions::{DeadLetterView, RedriveBody, SubscriptionView};
pub use tokens::{MeView, NewTokenView, RevokeBody, RevokedView, TokenBody, TokenView};
pub use undo_plan::PlannedView;
pub use why::WhyView;
pub use words::QUARANTINED;
