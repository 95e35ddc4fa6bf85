//! How the model of a hook is to answer, as Kheish writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// What one turn of a model is asked for. A field that has its default counts as not said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Generation {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback_model: Option<String>,
    #[serde(default)]
    pub tool_choice: ToolChoice,
    #[serde(default = "yes")]
    pub allow_parallel_tool_calls: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    #[serde(default, skip_serializing_if = "is_unsaid")]
    pub reasoning: Option<Reasoning>,
    #[serde(default)]
    pub response_format: ResponseFormat,
}

/// Which tool the model may or has to use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ToolChoice {
    #[default]
    Auto,
    None,
    Required,
    Specific {
        name: String,
    },
}

/// How much the model is to think before it answers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Reasoning {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effort: Option<Effort>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<Summary>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget_tokens: Option<u32>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub interleaved: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    Xhigh,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Summary {
    Auto,
    Concise,
    Detailed,
    None,
}

/// The form of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ResponseFormat {
    #[default]
    Text,
    StructuredJson {
        schema: Schema,
    },
}

/// What an answer in JSON has to look like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    pub kind: Kind,
    #[serde(default)]
    pub fields: BTreeMap<String, Schema>,
    #[serde(default)]
    pub optional_fields: BTreeMap<String, Schema>,
    #[serde(default)]
    pub items: Option<Box<Schema>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Any,
    String,
    Number,
    Boolean,
    Object,
    Array,
}

impl Default for Generation {
    fn default() -> Self {
        Self {
            model: None,
            fallback_model: None,
            tool_choice: ToolChoice::default(),
            allow_parallel_tool_calls: true,
            max_output_tokens: None,
            temperature: None,
            reasoning: None,
            response_format: ResponseFormat::default(),
        }
    }
}

impl Generation {
    /// The fields that do not have their defaults, as JSON.
    #[must_use]
    pub fn said(&self) -> Map<String, Value> {
        let (Value::Object(own), Value::Object(default)) = (json!(self), json!(Self::default())) else {
            return Map::new();
        };
        let mut said: Map<_, _> = own.into_iter().filter(|(name, value)| default.get(name) != Some(value)).collect();
        // A 32-bit number is written with the digits that it was written with, not with those of 64 bits.
        let digits = self.temperature.and_then(|temperature| temperature.to_string().parse::<f64>().ok());
        if let Some(temperature) = digits {
            said.insert("temperature".to_owned(), json!(temperature));
        }
        said
    }
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
const fn is_false(flag: &bool) -> bool {
    !*flag
}

#[expect(clippy::ref_option, reason = "serde asks with a reference")]
fn is_unsaid(reasoning: &Option<Reasoning>) -> bool {
    reasoning.as_ref().is_none_or(|reasoning| *reasoning == Reasoning::default())
}
