//! `[[schedule]]`: which sagas start when, by themselves.

use std::collections::BTreeMap;

use amends_engine::{DefinitionName, Payload, ServiceName};
use amends_runtime::{
    CatchUp, Overlap, SCHEDULE_TAG, SCHEDULED_AT, SchedulePattern, SchedulePatternError,
    ScheduleSettings, TAG_BYTES_MAX,
};
use serde_json::{Map, Number, Value};
use toml::de::DeValue;

use crate::suggest::list;
use crate::table::{Context, Item, Table, check_name};

const HELP: &str = "begin each schedule with [[schedule]], in two brackets, then name = \"…\", \
                    definition = \"…\" and cron = \"…\"";
const CRON_HELP: &str = "write minute, hour, day of the month, month and day of the week, such as \
                         \"0 2 * * *\" for 02:00 each day, or a word such as \"@daily\"";
const ZONE_HELP: &str = "write a name of the IANA database, such as \"Europe/Vienna\"";
const INPUT_HELP: &str = "write a table such as { shop = \"north\" }";
const TAGS_HELP: &str = "write a table of texts such as { team = \"billing\" }";

/// The schedules of one config: each look reads all of them.
const SCHEDULES_MAX: usize = 256;
/// The tags of a scheduled saga beside the two that are added; a saga has 16.
const TAGS_MAX: usize = 14;
/// How many tables and lists of an input may be in one another.
const INPUT_DEPTH_MAX: usize = 32;

/// Reads every `[[schedule]]`. `definitions` has the names of all definitions.
pub(super) fn read_schedules(
    item: Option<&Item<'_>>,
    definitions: &[&str],
    context: &mut Context<'_>,
) -> Vec<ScheduleSettings> {
    let Some(items) = item.and_then(|item| item.list(context, HELP)) else { return Vec::new() };
    if let Some(item) = items.get(SCHEDULES_MAX) {
        let message = format!("{} schedules, at most {SCHEDULES_MAX} are allowed", items.len());
        item.error(context, message, "have one saga do the work of several");
    }
    let (mut read, mut seen) = (Vec::new(), BTreeMap::new());
    for item in &items {
        let Some(table) = item.table(context, HELP) else { continue };
        read.extend(read_schedule(table, definitions, &mut seen, context));
    }
    read
}

fn read_schedule(
    mut table: Table<'_>,
    definitions: &[&str],
    seen: &mut BTreeMap<String, usize>,
    context: &mut Context<'_>,
) -> Option<ScheduleSettings> {
    let name = table.require("name", "\"nightly\"", context);
    let name = name.and_then(|item| read_name(&item, seen, context));
    if let Some(name) = &name {
        table.key = format!("schedule.{name}");
        context.remember(&table.key, &table.span);
    }
    let definition = table.require("definition", "\"report\"", context);
    let definition = definition.and_then(|item| read_definition(&item, definitions, context));
    let cron = table.require("cron", "\"0 2 * * *\"", context);
    let zone = table.take("timezone", context);
    let pattern = cron.and_then(|cron| read_pattern(&cron, zone.as_ref(), context));
    let input = table.take("input", context);
    let input = input.map_or_else(|| Some(Map::new()), |item| read_input(&item, context));
    let tags = table.take("tags", context);
    let tags = tags.map_or_else(|| Some(BTreeMap::new()), |item| read_tags(&item, context));
    let catch_up = table.take("catch_up", context);
    let words = [("none", CatchUp::None), ("last", CatchUp::Last), ("all", CatchUp::All)];
    let catch_up = catch_up.and_then(|item| item.word(context, &words)).unwrap_or_default();
    let overlap = table.take("overlap", context);
    let words = [("allow", Overlap::Allow), ("skip", Overlap::Skip)];
    let overlap = overlap.and_then(|item| item.word(context, &words)).unwrap_or_default();
    table.finish(context);
    Some(ScheduleSettings {
        name: name?,
        pattern: pattern?,
        definition: definition?,
        input: input?,
        tags: tags?,
        catch_up,
        overlap,
    })
}

/// The name is a part of start keys and a label of metrics, so it is made like those of services.
fn read_name(
    item: &Item<'_>,
    seen: &mut BTreeMap<String, usize>,
    context: &mut Context<'_>,
) -> Option<String> {
    let text = item.text(context, "\"nightly\"")?;
    let name: ServiceName = check_name(text, &item.key, item.place(context), context)?;
    let (name, line) = (name.to_string(), context.source.position(&item.span).line);
    if let Some(first) = seen.get(&name) {
        let message = format!("two schedules are named `{name}`; the first is in line {first}");
        item.error(context, message, "give each a name of its own");
        return None;
    }
    seen.insert(name.clone(), line);
    Some(name)
}

/// Reads the name of a definition of this config.
pub(super) fn read_definition(
    item: &Item<'_>,
    definitions: &[&str],
    context: &mut Context<'_>,
) -> Option<DefinitionName> {
    let name = item.text(context, "\"report\"")?;
    if definitions.contains(&name) {
        return name.parse().ok();
    }
    let known = || definitions.iter().copied();
    let help =
        context.did_you_mean(name, known(), || format!("the sagas here are {}", list(known())));
    item.error(context, format!("there is no saga `{name}` in this config"), help);
    None
}

fn read_pattern(
    cron: &Item<'_>,
    zone: Option<&Item<'_>>,
    context: &mut Context<'_>,
) -> Option<SchedulePattern> {
    let text = cron.text(context, "\"0 2 * * *\"")?;
    let zone_text = match zone {
        Some(zone) => zone.text(context, "\"Europe/Vienna\"")?,
        None => "UTC",
    };
    match (SchedulePattern::parse(text, zone_text), zone) {
        (Ok(pattern), _) => Some(pattern),
        (Err(error @ SchedulePatternError::Zone(_)), Some(zone)) => {
            zone.error(context, error.to_string(), ZONE_HELP);
            None
        }
        (Err(error), _) => {
            cron.error(context, error.to_string(), CRON_HELP);
            None
        }
    }
}

fn read_input(item: &Item<'_>, context: &mut Context<'_>) -> Option<Map<String, Value>> {
    if item.value.as_table().is_none() {
        item.wrong_type(context, "a table", INPUT_HELP);
        return None;
    }
    let value = match plain(item.value, INPUT_DEPTH_MAX) {
        Ok(Value::Object(fields)) => fields,
        Ok(_) => return None,
        Err(message) => {
            item.error(context, message, INPUT_HELP);
            return None;
        }
    };
    if value.contains_key(SCHEDULED_AT) {
        let message = format!("the host adds `{SCHEDULED_AT}`, the time at which the saga is due");
        item.error(context, message, "give the field another name");
        return None;
    }
    // As it will be with the time, whose text has this length.
    let mut whole = value.clone();
    whole.insert(SCHEDULED_AT.to_owned(), Value::from("2026-03-29T01:00:00Z"));
    if let Err(error) = Payload::from_value(&Value::Object(whole)) {
        item.error(context, format!("it is no input: {error}"), INPUT_HELP);
        return None;
    }
    Some(value)
}

/// Makes JSON of a value. The error says what JSON does not have.
fn plain(value: &DeValue<'_>, depth: usize) -> Result<Value, String> {
    if depth == 0 {
        return Err(format!("more than {INPUT_DEPTH_MAX} tables and lists are in one another"));
    }
    match value {
        DeValue::String(text) => Ok(Value::String(text.to_string())),
        DeValue::Boolean(value) => Ok(Value::Bool(*value)),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map(Value::from)
            .map_err(|_| format!("{number} is out of range")),
        DeValue::Float(number) => {
            let float = number.as_str().parse().ok().and_then(Number::from_f64);
            float.map(Value::Number).ok_or_else(|| format!("JSON has no number {number}"))
        }
        DeValue::Datetime(date) => Err(format!("JSON has no dates: put {date} in quotes")),
        DeValue::Array(items) => {
            items.iter().map(|item| plain(item.get_ref(), depth - 1)).collect()
        }
        DeValue::Table(fields) => fields
            .iter()
            .map(|(name, value)| {
                Ok((name.get_ref().to_string(), plain(value.get_ref(), depth - 1)?))
            })
            .collect(),
    }
}

fn read_tags(item: &Item<'_>, context: &mut Context<'_>) -> Option<BTreeMap<String, String>> {
    let table = item.table(context, TAGS_HELP)?;
    let mut tags = BTreeMap::new();
    for (name, _, item) in table.entries(context) {
        let value = item.text(context, "\"billing\"")?;
        let is_long = |text: &str| text.is_empty() || text.len() > TAG_BYTES_MAX;
        let is_ours = [SCHEDULE_TAG, SCHEDULED_AT].contains(&name);
        let message = if is_ours {
            format!("the host sets the tag `{name}`")
        } else if is_long(name) || is_long(value) {
            format!("the name and the value of a tag have 1 to {TAG_BYTES_MAX} bytes")
        } else if name.chars().chain(value.chars()).any(char::is_control) {
            "a tag has no control characters".to_owned()
        } else {
            tags.insert(name.to_owned(), value.to_owned());
            continue;
        };
        item.error(context, message, TAGS_HELP);
        return None;
    }
    if tags.len() > TAGS_MAX {
        let message = format!("{} tags, at most {TAGS_MAX} are allowed", tags.len());
        item.error(context, message, TAGS_HELP);
        return None;
    }
    Some(tags)
}
