//! What a step does: `plugin`, `wait`, `sleep` or `saga`.

use amends_engine::{DefinitionName, PluginName, SignalName, StepKind, WaitSpec};

use crate::table::{Context, Item, Table};

const WAIT_HELP: &str = "write the signal's name, or { signal = \"approved\", timeout = \"48h\" }";
const ONE_HELP: &str = "keep one of plugin, wait, sleep and saga; make the other a step of its own";

/// Reads it; none when that was reported. A step that says nothing of it lacks its plugin.
pub(super) fn read_kind(table: &mut Table<'_>, context: &mut Context<'_>) -> Option<StepKind> {
    let others = ["wait", "sleep", "saga"].map(|kind| (kind, table.take(kind, context)));
    let mut others = others.into_iter().filter_map(|(kind, item)| Some((kind, item?)));
    let service = table.take("service", context);
    let Some((kind, item)) = others.next() else {
        let plugin = table.require("plugin", "\"inventory\"", context);
        let plugin = plugin.and_then(|item| item.name::<PluginName>(context, "inventory"));
        let service = service.and_then(|item| item.name(context, "carrier"));
        return Some(StepKind::Call { plugin: plugin?, service });
    };
    let more = others.map(|(_, item)| item).chain(table.take("plugin", context));
    for other in more {
        let message = format!("the step is a `{kind}` already");
        other.error(context, message, ONE_HELP);
    }
    for (key, item) in [
        ("service", service),
        ("timeout", table.take("timeout", context)),
        ("retry", table.take("retry", context)),
    ] {
        if let Some(item) = item {
            let message = format!("a step that is a `{kind}` has no {key}: it calls no plugin");
            item.error(context, message, "leave it out");
        }
    }
    match kind {
        "wait" => read_wait(&item, context).map(|wait| StepKind::Wait { wait }),
        "sleep" => item.duration(context, "10m").map(|sleep| StepKind::Sleep { sleep }),
        _ => {
            let saga = item.name::<DefinitionName>(context, "billing");
            saga.map(|saga| StepKind::Saga { saga })
        }
    }
}

fn read_wait(item: &Item<'_>, context: &mut Context<'_>) -> Option<WaitSpec> {
    if item.value.is_str() {
        let signal = item.name::<SignalName>(context, "approved")?;
        return Some(WaitSpec { signal, timeout: None });
    }
    let mut table = item.table(context, WAIT_HELP)?;
    let signal = table
        .require("signal", "\"approved\"", context)
        .and_then(|item| item.name::<SignalName>(context, "approved"));
    let timeout = table.take("timeout", context);
    let is_said = timeout.is_some();
    let timeout = timeout.and_then(|item| item.duration(context, "48h"));
    table.finish(context);
    // One that could not be read was reported.
    (timeout.is_some() == is_said).then_some(WaitSpec { signal: signal?, timeout })
}
