//! Values of JSON as values of CEL, and back.

#![expect(
    clippy::disallowed_types,
    reason = "the CEL library keeps maps in a HashMap; what comes out of it is put in order here"
)]

use std::collections::HashMap;

use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt,
};
use cel::common::value::Val;
use serde_json::Value;

/// Converts a value of JSON. Whole numbers become `int`, so that `input.quantity + 1` works without
/// a cast.
pub(super) fn to_cel(value: &Value) -> Box<dyn Val> {
    match value {
        Value::Null => Box::new(CelNull),
        Value::Bool(value) => Box::new(CelBool::from(*value)),
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(whole), _) => Box::new(CelInt::from(whole)),
            (None, Some(whole)) => Box::new(CelUInt::from(whole)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Value::String(text) => Box::new(CelString::from(text.clone())),
        Value::Array(items) => {
            Box::new(CelList::from(items.iter().map(to_cel).collect::<Vec<_>>()))
        }
        Value::Object(fields) => {
            let fields = fields.iter();
            let fields = fields.map(|(name, value)| (CelMapKey::from(name.clone()), to_cel(value)));
            Box::new(CelMap::from(fields.collect::<HashMap<_, _>>()))
        }
    }
}

/// Converts a value of CEL; none when JSON has no such value. The keys of maps are sorted, so that
/// the text is always the same.
pub(super) fn from_cel(value: &dyn Val) -> Option<Value> {
    if let Some(text) = value.downcast_ref::<CelString>() {
        return Some(Value::from(text.inner()));
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        let items = list.inner().iter();
        return items.map(|item| from_cel(item.as_ref())).collect::<Option<_>>().map(Value::Array);
    }
    let Some(map) = value.downcast_ref::<CelMap>() else {
        let value = cel::Value::try_from(value).ok()?;
        return value.json().ok();
    };
    // Keys of different types may have the same text; the last of them stays.
    let mut entries: Vec<_> = map.inner().iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    let mut fields = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        fields.push((cel::objects::Key::from(key.clone()).to_string(), from_cel(value.as_ref())?));
    }
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    Some(Value::Object(fields.into_iter().collect()))
}
