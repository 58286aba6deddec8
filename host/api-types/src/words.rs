//! The words of texts that are one of a few, as schemas of the OpenAPI document.
//!
//! The structs have texts there, so that a client reads the answer of a newer host with a word that it does not
//! know. The schemas tell which words this version has.

use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use amends_engine::{SagaStatus, StepStatus};

/// The status of a saga that cannot be read or stepped, so that nothing touches it.
pub const QUARANTINED: &str = "quarantined";

macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident = $words:expr;)*) => {$(
        $(#[doc = $doc])*
        #[derive(Debug)]
        pub(crate) struct $name;

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                let words = ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some(concat!($($doc,)*).trim()))
                    .enum_values(Some($words));
                RefOr::T(Schema::Object(words.build()))
            }
        }

        impl ToSchema for $name {}
    )*};
}

words! {
    /// The status of a saga. `completed`, `compensated` and `abandoned` are ends. A saga that is `quarantined`
    /// cannot be read or stepped, so that nothing touches it.
    SagaStatusWord = SagaStatus::ALL.iter().map(|status| status.as_str()).chain([QUARANTINED]);
    /// The status of a step.
    StepStatusWord = StepStatus::ALL.iter().map(|status| status.as_str());
    /// The direction of a call.
    DirectionWord = ["execute", "compensate"];
    /// What an operator can do: send the signal that the saga waits for, or give an order.
    VerbWord = ["signal", "retry", "resolve", "skip", "resume", "cancel", "compensate", "pause", "abandon"];
    /// The state of a circuit breaker.
    BreakerStateWord = ["closed", "open", "half_open"];
    /// What a step does while a circuit breaker is open.
    OnOpenWord = ["wait", "fail"];
    /// What became of the personal values of a saga.
    PersonalStateWord = ["sealed", "waiting", "erased"];
    /// The cause of the activation of a component.
    ActivationCauseWord = ["file", "deploy", "rollback", "canary"];
    /// The state of a rule for events.
    EventRuleStateWord = ["active", "away"];
    /// What became of an event.
    EventResultWord = ["started", "repeated", "signalled", "ignored"];
    /// The state of a subscription.
    SubscriptionStateWord = ["active", "away", "disabled"];
    /// A role of a token: which permissions it has. `payloads` is of no role; a token has it beside its roles.
    RoleWord = ["viewer", "operator", "deployer", "service", "admin"];
    /// What a caller may do. Each operation needs one or two of these.
    PermissionWord = ["read", "payloads", "start", "operate", "deploy", "administer"];
    /// The state of a token.
    TokenStateWord = ["active", "expired", "revoked"];
}
