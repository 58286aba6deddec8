//! Shows a plugin and the components that serve or served it.

use amends_api_types::{
    ActivationView, CallCountsView, CanaryEndView, CanaryView, PluginView, RejectionView,
};
use amends_registry::{
    Activation, ActivationCause, CallCounts, CanaryInfo, PluginInfo, RejectionRecord,
};

/// Shows a plugin.
pub(crate) fn plugin_view(info: PluginInfo) -> PluginView {
    PluginView {
        name: info.name.to_string(),
        digest: info.digest.map(|digest| digest.to_string()),
        version: info.version,
        exports: info.exports,
        needs: info.needs,
        active_since: info.active_since,
        history: info.history.into_iter().map(activation_view).collect(),
        last_rejection: info.rejections.first().map(rejection_view),
        rejections: info.rejections.iter().map(rejection_view).collect(),
        canaries: info.canaries.into_iter().map(canary_view).collect(),
    }
}

fn canary_view(canary: CanaryInfo) -> CanaryView {
    let CanaryInfo { digest, version, at, spec, who, reason, tally, ended } = canary;
    CanaryView {
        at,
        digest: digest.to_string(),
        version,
        share: spec.share,
        margin: spec.margin,
        min_calls: spec.calls_min,
        promote_after: spec.promote_after,
        who,
        reason,
        calls: call_counts_view(tally.canary),
        active_calls: call_counts_view(tally.active),
        ended: ended.map(|end| CanaryEndView {
            at: end.at,
            promoted: end.is_promoted,
            who: end.who,
            reason: end.reason,
        }),
    }
}

fn call_counts_view(counts: CallCounts) -> CallCountsView {
    let CallCounts { calls: total, failed, unknown } = counts;
    CallCountsView { total, failed, unknown }
}

fn activation_view(one: Activation) -> ActivationView {
    let cause = match one.why.cause {
        ActivationCause::File => "file",
        ActivationCause::Deploy => "deploy",
        ActivationCause::Rollback => "rollback",
        ActivationCause::Canary => "canary",
    };
    ActivationView {
        at: one.at,
        digest: one.digest.to_string(),
        version: one.version,
        cause: cause.to_owned(),
        who: one.why.who,
        reason: one.why.reason,
    }
}

fn rejection_view(one: &RejectionRecord) -> RejectionView {
    let digest = one.digest.map(|digest| digest.to_string());
    RejectionView { at: one.at, digest, reason: one.reason.clone() }
}
