//! What is looked at when an expression is compiled: its depth, its names, and what it may cost.
//!
//! What takes longer the more data there is, is put into a call of [`COST`], which pays for it before it is done:
//! whatever goes through an item at a time, compares, searches or copies. Everything else takes as long as it is written.

use cel::common::ast::operators::{
    ADD, CONDITIONAL, DIVIDE, EQUALS, GREATER, GREATER_EQUALS, IN, INDEX, LESS, LESS_EQUALS, LOGICAL_AND, LOGICAL_NOT,
    LOGICAL_OR, MODULO, MULTIPLY, NEGATE, NOT_EQUALS, NOT_STRICTLY_FALSE, SUBSTRACT,
};
use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue};
use cel::common::types::CelInt;

use super::Source;
use super::facts::{BUDGET, COST, EVENT};
use crate::domain::escape;
use crate::domain::text_error::Refusal;

/// How deep the tree of an expression may be: every level of it is a call on the stack.
const DEPTH_MAX: usize = 48;
/// As long as it is written takes what these do, or no longer than the shorter side.
const CHEAP: [&str; 10] = [
    LOGICAL_AND,
    LOGICAL_OR,
    LOGICAL_NOT,
    CONDITIONAL,
    NOT_STRICTLY_FALSE,
    NEGATE,
    SUBSTRACT,
    MULTIPLY,
    DIVIDE,
    MODULO,
];
const COMPARISONS: [&str; 6] = [EQUALS, NOT_EQUALS, LESS, LESS_EQUALS, GREATER, GREATER_EQUALS];
/// Functions, and how many values they take, the one before the dot included.
const FUNCTIONS: [(&str, usize); 12] = [
    ("size", 1),
    ("contains", 2),
    ("startsWith", 2),
    ("endsWith", 2),
    ("int", 1),
    ("uint", 1),
    ("double", 1),
    ("string", 1),
    ("bool", 1),
    ("bytes", 1),
    ("dyn", 1),
    ("type", 1),
];
/// What is expanded by the parser if it is written right.
const MACROS: [(&str, &str); 6] = [
    ("has", "has(event.data.name)"),
    ("all", "list.all(item, condition)"),
    ("exists", "list.exists(item, condition)"),
    ("exists_one", "list.exists_one(item, condition)"),
    ("map", "list.map(item, value)"),
    ("filter", "list.filter(item, condition)"),
];
/// What may be called, for those who misspell it.
const CALLABLE: [&str; 18] = [
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "dyn",
    "type",
    "has",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
];
/// What an expression knows: the event, and types, which are values too (`type(event.data.n) == int`).
const NAMES: [&str; 11] =
    [EVENT, "int", "uint", "double", "string", "bool", "bytes", "list", "map", "null_type", "type"];

/// Checks a whole expression, and puts prices into it.
pub(super) fn expression(root: &mut IdedExpr, source: &Source<'_>) -> Result<(), Refusal> {
    if is_deeper(root, DEPTH_MAX) {
        let expected = format!("an expression of at most {DEPTH_MAX} levels");
        return Err(Refusal::new(expected, "one that is nested deeper, or a longer chain"));
    }
    Walk { source, variables: Vec::new() }.visit(root).map(drop)
}

fn is_deeper(expression: &IdedExpr, levels: usize) -> bool {
    levels == 0 || children(&expression.expr).into_iter().any(|child| is_deeper(child, levels - 1))
}

fn children(expression: &Expr) -> Vec<&IdedExpr> {
    match expression {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(it) => {
            vec![&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(made) => made.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::StructField(field) => vec![&field.value],
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
    }
}

/// A walk through the tree, the variables of loops around it in hand.
struct Walk<'a> {
    source: &'a Source<'a>,
    variables: Vec<String>,
}

impl Walk<'_> {
    /// Answers how many nodes there are.
    fn visit(&mut self, expression: &mut IdedExpr) -> Result<usize, Refusal> {
        let id = expression.id;
        let inside = match &mut expression.expr {
            Expr::Unspecified | Expr::Struct(_) => {
                return Err(Refusal::new("values, lists and maps", self.source.of(id)));
            }
            Expr::Literal(_) => 0,
            Expr::Ident(name) => self.name(name).map(|()| 0)?,
            Expr::Select(select) => {
                if let Expr::Ident(name) = &select.operand.expr
                    && name == EVENT
                    && !self.variables.iter().any(|variable| variable == EVENT)
                {
                    attribute(&select.field)?;
                }
                self.visit(&mut select.operand)?
            }
            Expr::Call(call) => self.call(call, id)?,
            Expr::List(list) => self.all(&mut list.elements)?,
            Expr::Map(map) => {
                let mut count = 0;
                for entry in &mut map.entries {
                    let EntryExpr::MapEntry(entry) = &mut entry.expr else {
                        return Err(Refusal::new("a map of keys and values", self.source.of(id)));
                    };
                    count += self.visit(&mut entry.key)? + self.visit(&mut entry.value)?;
                    pay_for(&mut entry.key, 0);
                    pay_for(&mut entry.value, 0);
                }
                count
            }
            Expr::Comprehension(comprehension) => self.comprehension(comprehension)?,
        };
        Ok(inside + 1)
    }

    /// Values that are copied.
    fn all(&mut self, expressions: &mut [IdedExpr]) -> Result<usize, Refusal> {
        let mut count = 0;
        for expression in expressions {
            count += self.visit(expression)?;
            pay_for(expression, 0);
        }
        Ok(count)
    }

    fn name(&self, name: &str) -> Result<(), Refusal> {
        let name = name.strip_prefix('.').unwrap_or(name);
        let known = name.starts_with('@') || NAMES.contains(&name);
        if known || self.variables.iter().any(|variable| variable == name) {
            return Ok(());
        }
        let unknown = Some((name.to_owned(), NAMES.as_slice()));
        let found = format!("`{}`", escape::name(name));
        Err(Refusal { unknown, ..Refusal::new("names that exist: `event`, and the variables of loops", found) })
    }

    fn call(&mut self, call: &mut CallExpr, id: u64) -> Result<usize, Refusal> {
        let mut count = 0;
        for value in call.target.as_deref_mut().into_iter().chain(&mut call.args) {
            count += self.visit(value)?;
        }
        let name = call.func_name.as_str();
        if CHEAP.contains(&name) {
            return Ok(count);
        }
        if name == INDEX {
            // The key is hashed, and copied where there is none.
            call.args.iter_mut().skip(1).for_each(|key| pay_for(key, 0));
            return Ok(count);
        }
        if COMPARISONS.contains(&name) {
            if !call.args.iter().any(|value| matches!(value.expr, Expr::Literal(_))) {
                call.args.iter_mut().for_each(|value| pay_for(value, 0));
            }
            return Ok(count);
        }
        // A list that grows by one, in a loop of `map` or `filter`: the library knows it by its shape.
        let grows = name == ADD
            && matches!(call.args.first(), Some(IdedExpr { expr: Expr::Ident(it), .. }) if it.starts_with('@'));
        if grows {
            return Ok(count);
        }
        if name != ADD && name != IN {
            self.function(call, id)?;
        }
        call.target.as_deref_mut().into_iter().chain(&mut call.args).for_each(|value| pay_for(value, 0));
        Ok(count)
    }

    fn function(&self, call: &CallExpr, id: u64) -> Result<(), Refusal> {
        let name = call.func_name.as_str();
        let values = call.args.len() + usize::from(call.target.is_some());
        if let Some((_, form)) = MACROS.iter().find(|(known, _)| *known == name) {
            return Err(Refusal::new(format!("`{name}` to be written as `{form}`"), self.source.of(id)));
        }
        match FUNCTIONS.iter().find(|(known, _)| *known == name) {
            Some((_, expected)) if *expected == values => Ok(()),
            Some((_, expected)) => {
                let expected = format!("{expected} value{} for `{name}`", if *expected == 1 { "" } else { "s" });
                Err(Refusal::new(expected, values.to_string()))
            }
            None => {
                let unknown = Some((name.to_owned(), CALLABLE.as_slice()));
                let found = format!("`{}`", escape::name(name));
                Err(Refusal { unknown, ..Refusal::new("functions that exist", found) })
            }
        }
    }

    fn comprehension(&mut self, it: &mut ComprehensionExpr) -> Result<usize, Refusal> {
        let outside = self.visit(&mut it.iter_range)? + self.visit(&mut it.accu_init)?;
        let depth = self.variables.len();
        self.variables.push(it.iter_var.clone());
        self.variables.extend(it.iter_var2.clone());
        let each = self.visit(&mut it.loop_cond)? + self.visit(&mut it.loop_step)?;
        let result = self.visit(&mut it.result)?;
        self.variables.truncate(depth);
        pay_for(&mut it.iter_range, each);
        Ok(outside + each + result)
    }
}

/// Attributes of CloudEvents have such names; what has another one never exists.
fn attribute(name: &str) -> Result<(), Refusal> {
    const KNOWN: [&str; 8] = ["id", "source", "type", "subject", "time", "data", "datacontenttype", "dataschema"];
    if name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Ok(());
    }
    let found = format!("`event.{}`", escape::name(name));
    let expected = "an attribute of an event (lower-case letters and digits; what a publisher says is in `event.data`)";
    Err(Refusal { unknown: Some((name.to_owned(), &KNOWN)), ..Refusal::new(expected, found) })
}

/// Has a value paid for before it is used, unless it is as small as it is written.
fn pay_for(expression: &mut IdedExpr, each: usize) {
    if is_small(&expression.expr) {
        return;
    }
    let inner = std::mem::take(expression);
    let part = |expr| IdedExpr { id: inner.id, expr };
    let each = CelInt::from(i64::try_from(each).unwrap_or(i64::MAX));
    let args = vec![part(Expr::Ident(BUDGET.to_owned())), part(Expr::Literal(LiteralValue::Int(each))), inner.clone()];
    *expression = part(Expr::Call(CallExpr { func_name: COST.to_owned(), target: None, args }));
}

fn is_small(expression: &Expr) -> bool {
    match expression {
        Expr::Literal(_) => true,
        Expr::Ident(name) => name.starts_with('@'),
        Expr::List(list) => list.elements.iter().all(|item| is_small(&item.expr)),
        _ => false,
    }
}
