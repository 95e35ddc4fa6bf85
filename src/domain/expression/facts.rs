//! An event as expressions see it, and the budget that their evaluation is paid from.

use std::any::Any;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cel::common::ast::IdedExpr;
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt, DYN_TYPE, INT_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Context, Env, ExecutionError, Value};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::{LIBRARY, failure};
use crate::domain::event::Event;

/// The function that [`super::check`] puts around what can take long. No expression can name it.
pub(super) const COST: &str = "@cost";
/// The variable that holds the budget.
pub(super) const BUDGET: &str = "@budget";
/// The variable that expressions know.
pub(super) const EVENT: &str = "event";
/// Steps of one evaluation: a tenth of a second and some 100 MiB at most.
const STEPS_MAX: u64 = 1_000_000;
/// More than these would be needed.
const TOO_MUCH: &str = "the event holds too much to evaluate this with";
/// Bytes of a text that are looked at in one step.
const BYTES_A_STEP: usize = 64;

/// An event, read when the first expression asks for it, and then kept for the others.
pub struct Facts<'e> {
    event: &'e Event,
    context: OnceCell<Option<Context<'e, 'e>>>,
}

impl<'e> Facts<'e> {
    #[must_use]
    pub const fn new(event: &'e Event) -> Self {
        Self { event, context: OnceCell::new() }
    }

    #[must_use]
    pub const fn event(&self) -> &'e Event {
        self.event
    }

    /// Whether its JSON can be read: it was not looked at when the event came, or not closely.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.context.get_or_init(|| context(self.event)).is_some()
    }

    /// Evaluates an expression that was checked, and reads its value.
    pub(super) fn evaluate<T>(
        &self,
        root: &IdedExpr,
        read: impl FnOnce(&CowVal<'_, '_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let context = self.context.get_or_init(|| context(self.event)).as_ref();
        let context = context.ok_or_else(|| "the event cannot be read".to_owned())?;
        let budget = context.get_variable(BUDGET);
        let budget = budget.as_ref().and_then(|budget| budget.downcast_ref::<Budget>());
        let budget = budget.ok_or_else(|| TOO_MUCH.to_owned())?;
        budget.0.store(STEPS_MAX, Ordering::Relaxed);
        let value = Value::resolve_val(root, context);
        if budget.is_spent() {
            return Err(TOO_MUCH.to_owned()); // an `||` may have passed over it
        }
        read(&value.map_err(|error| failure(&error))?)
    }
}

fn context(event: &Event) -> Option<Context<'_, '_>> {
    let mut context = Context::with_env(Arc::clone(&LIBRARY));
    let data = serde_json::from_slice::<Data<'_>>(&event.body).ok()?;
    context.add_variable_as_val(EVENT, data.0);
    context.add_variable_as_val(BUDGET, Box::new(Budget(AtomicU64::new(STEPS_MAX))));
    Some(context)
}

/// The standard library, and the price of things.
pub(super) fn library(mut env: Env) -> Env {
    // Its name is ours alone, so that nothing stands under it yet.
    let _ = env.add_overload(COST, COST, vec![DYN_TYPE, INT_TYPE, DYN_TYPE], pay);
    env
}

/// Pays for a look at all of a value, and for so many steps with each of its items; answers the value.
fn pay<'b, 'v>(mut arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let value = arguments.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let each = arguments.get(1).and_then(|each| each.downcast_ref::<CelInt>()).map_or(0, |each| *each.inner());
    let budget = arguments.first().and_then(|budget| budget.downcast_ref::<Budget>());
    let budget = budget.ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let items = value.as_sizer().map_or(0, |sizer| *sizer.size().inner());
    let items = if each == 0 { 0 } else { items };
    let steps = u64::try_from(items).unwrap_or_default().saturating_mul(each.unsigned_abs());
    if budget.spend(steps) && weigh(value.as_ref(), budget) {
        return Ok(value);
    }
    Err(ExecutionError::function_error(COST, TOO_MUCH))
}

/// Whether there is enough to look at all of a value.
fn weigh(value: &dyn Val, budget: &Budget) -> bool {
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        return budget.spend(1) && list.inner().iter().all(|item| weigh(item.as_ref(), budget));
    }
    if let Some(map) = value.downcast_ref::<CelMap<'_>>() {
        return budget.spend(1) && map.inner().values().all(|item| weigh(item.as_ref(), budget));
    }
    let bytes = value.downcast_ref::<CelString<'_>>().map_or(0, |text| text.inner().len());
    budget.spend(1 + u64::try_from(bytes / BYTES_A_STEP).unwrap_or(u64::MAX / 2))
}

/// Steps that are left.
#[derive(Debug)]
struct Budget(AtomicU64);

impl Budget {
    fn spend(&self, steps: u64) -> bool {
        let spent = self.0.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(steps));
        if spent.is_err() {
            self.0.store(0, Ordering::Relaxed);
        }
        spent.is_ok()
    }

    fn is_spent(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl Val for Budget {
    fn get_type(&self) -> &Type {
        Self::cel_type()
    }

    fn cel_type() -> &'static Type {
        static TYPE: Type = Type::new_unspecified_type("budget");
        &TYPE
    }

    fn equals(&self, _: &dyn Val) -> bool {
        false
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(Self(AtomicU64::new(self.0.load(Ordering::Relaxed))))
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}

/// JSON as CEL has it: whole numbers are int (or uint, if too large for that), others double.
struct Data<'v>(Box<dyn Val + 'v>);

impl<'de> Deserialize<'de> for Data<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> DeserializeSeed<'de> for Reader {
    type Value = Data<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader {
    type Value = Data<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Data(Box::new(CelNull)))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Data(Box::new(CelBool::from(value))))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Data(Box::new(CelInt::from(value))))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(Data(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        }))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Data(Box::new(CelDouble::from(value))))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Data(Box::new(CelString::from(value))))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Data(Box::new(CelString::from(value.to_owned()))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut list: Vec<Box<dyn Val + 'de>> = Vec::new();
        while let Some(item) = items.next_element_seed(Self)? {
            list.push(item.0);
        }
        Ok(Data(Box::new(CelList::from(list))))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
        let mut map: HashMap<CelMapKey<'de>, Box<dyn Val + 'de>> = HashMap::new();
        while let Some(name) = entries.next_key::<String>()? {
            map.insert(CelMapKey::from(name), entries.next_value_seed(Self)?.0);
        }
        Ok(Data(Box::new(CelMap::from(map))))
    }
}
