//! Reads settings. Their types decide what is taken. The message about a mistake is made afterwards.

use serde_json::Value;

use super::{Fault, FaultKind, HookDefinition, HookSettings, SCHEMA_VERSION, fields, validate};
use crate::dialect::json_text::{JsonText, NotJson, SPOTS_MAX, Way};
use crate::dialect::kheish::event_name::EventName;
use crate::domain::escape::quoted;
use crate::yaml::problem::Mismatch;

const HOOKS: &str = "hooks";
const VERSION: &str = "schema_version";

/// Settings, and what stands beside them in the text.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Read {
    pub settings: HookSettings,
    /// One for each hook of `settings`, in their order.
    pub origins: Vec<Origin>,
    /// Fields at the top that Kheish passes over.
    pub unknown: Vec<Way>,
    /// What is wrong with the hooks that are not in `settings`, in the order of Kheish's rules.
    pub faults: Vec<Fault>,
}

/// Where a hook comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    pub event: &'static EventName,
    /// Its number among the hooks of the event, from 0.
    pub index: usize,
    pub way: Way,
    /// Fields in it that Kheish passes over.
    pub unknown: Vec<Way>,
}

impl HookSettings {
    /// Reads `hooks.json`: of schema version 1, or of the older form without a version.
    ///
    /// # Errors
    /// Everything that is wrong with it, in the order of their rules. Kheish would start without hooks.
    pub fn of_file(bytes: &[u8]) -> Result<Read, Vec<Fault>> {
        Self::of_file_partly(bytes).and_then(whole)
    }

    /// As [`Self::of_file`], but hooks that are wrong are left out, and [`Read::faults`] says why.
    ///
    /// # Errors
    /// What is wrong with the file as a whole.
    pub fn of_file_partly(bytes: &[u8]) -> Result<Read, Vec<Fault>> {
        let (text, value) = JsonText::read(bytes).map_err(|error| vec![not_json(error)])?;
        let repeated = text.repeated_keys().into_iter().map(|(way, spot)| Fault {
            spot: Some(spot),
            ..Fault::new(FaultKind::Ambiguous, &way, "expected each key once in an object")
        });
        let repeated: Vec<Fault> = repeated.collect();
        if !repeated.is_empty() {
            return Err(repeated);
        }
        let place = |faults: Vec<Fault>| -> Vec<Fault> {
            let spot = |(at, fault): (usize, &Fault)| (at < SPOTS_MAX).then(|| text.spot(&fault.way));
            let spots: Vec<_> = faults.iter().enumerate().map(spot).collect();
            faults.into_iter().zip(spots).map(|(fault, spot)| Fault { spot, ..fault }).collect()
        };
        let read = of_root(&value, true).map_err(place)?;
        Ok(Read { faults: place(read.faults), ..read })
    }

    /// Reads bare settings, as their API has them: `{"hooks": {…}}`.
    ///
    /// # Errors
    /// Everything that is wrong. The message of the first fault is the one that Kheish answers with.
    pub fn of_value(value: &Value) -> Result<Read, Vec<Fault>> {
        of_root(value, false).and_then(whole)
    }
}

fn whole(read: Read) -> Result<Read, Vec<Fault>> {
    if read.faults.is_empty() { Ok(read) } else { Err(read.faults) }
}

fn not_json(NotJson { reason, spot }: NotJson) -> Fault {
    Fault { spot, ..Fault::new(FaultKind::NotJson, &Way::default(), format!("expected JSON: {reason}")) }
}

fn of_root(value: &Value, is_file: bool) -> Result<Read, Vec<Fault>> {
    let top = Way::default();
    let incompatible = |way: &Way, message: String| Err(vec![Fault::new(FaultKind::Incompatible, way, message)]);
    let Value::Object(root) = value else {
        return incompatible(&top, "hook settings must be a JSON object".to_owned());
    };
    let version = root.get(VERSION).filter(|_| is_file);
    if let Some(version) = version {
        match version.as_u64() {
            Some(SCHEMA_VERSION) => {}
            Some(other) => {
                let message = format!("unsupported hook settings schema_version {other}; expected {SCHEMA_VERSION}");
                return incompatible(&top.field(VERSION), message);
            }
            None => {
                let message = "hook settings schema_version must be an unsigned integer".to_owned();
                return incompatible(&top.field(VERSION), message);
            }
        }
    }
    let known = |name: &String| name == HOOKS || version.is_some() && name == VERSION;
    let unknown = root.keys().filter(|name| !known(name)).map(|name| top.field(name)).collect();
    match root.get(HOOKS) {
        None => Ok(Read { unknown, ..Read::default() }),
        Some(hooks) => of_hooks(hooks, &top.field(HOOKS)).map(|read| Read { unknown, ..read }),
    }
}

fn of_hooks(value: &Value, at: &Way) -> Result<Read, Vec<Fault>> {
    let Value::Object(by_event) = value else {
        let message = "expected the hooks as an object, with an array of hooks for each event";
        return Err(vec![Fault::new(FaultKind::Incompatible, at, message)]);
    };
    let mut read =
        Read { faults: by_event.keys().filter_map(|name| unknown_event(name, at)).collect(), ..Read::default() };
    let named = EventName::ALL.iter().filter_map(|event| Some((event, by_event.get(event.snake)?)));
    for (event, value) in named {
        of_event(event, value, &at.field(event.snake), &mut read);
    }
    // Types come before rules, as there.
    read.faults.sort_by_key(|fault| fault.kind == FaultKind::Invalid);
    Ok(read)
}

fn unknown_event(name: &str, at: &Way) -> Option<Fault> {
    if EventName::named(name).is_some() {
        return None;
    }
    let meant = Mismatch::new("").did_you_mean(name, EventName::ALL.iter().map(|event| event.snake)).help;
    let meant = meant.map(|help| format!(": {help}")).unwrap_or_default();
    let message = format!("unknown event {}, expected one of the {}{meant}", quoted(name), EventName::ALL.len());
    Some(Fault::new(FaultKind::Incompatible, &at.field(name), message))
}

fn of_event(event: &'static EventName, value: &Value, at: &Way, read: &mut Read) {
    let Value::Array(items) = value else {
        let message = format!("expected the hooks of {} as an array", event.snake);
        read.faults.push(Fault::new(FaultKind::Incompatible, at, message));
        return;
    };
    let mut hooks = Vec::new();
    for (index, item) in items.iter().enumerate() {
        let way = at.item(index);
        match of_item(event, index, item, &way) {
            Ok(hook) => {
                hooks.push(hook);
                read.origins.push(Origin { event, index, unknown: fields::unknown(item, &way), way });
            }
            Err(faults) => read.faults.extend(faults),
        }
    }
    read.settings.hooks.push((event, hooks));
}

fn of_item(event: &EventName, index: usize, item: &Value, at: &Way) -> Result<HookDefinition, Vec<Fault>> {
    let hook: HookDefinition = serde_json::from_value(item.clone()).map_err(|error| {
        let (way, message) = fields::mistake(item, at, &error);
        let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
        let message = format!("{}: {message}", Fault::said_of(event, index, name));
        vec![Fault::new(FaultKind::Incompatible, &way, message)]
    })?;
    let broken = validate::check(event, index, &hook, at);
    if broken.is_empty() { Ok(hook) } else { Err(broken) }
}
