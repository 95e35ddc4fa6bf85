//! `run.prompt`, `run.agent` and `run.mcp_tool`: read and kept, and run by a later version.

use std::ops::RangeInclusive;

use serde_json::{Map, Value as Json};

use super::Outside;
use super::secret::resolve;
use crate::domain::hook::{Agent, McpTool, Model, ModelAction, Prompt, ToolSurface};
use crate::domain::secret::Secret;
use crate::yaml::problem::Mismatch;
use crate::yaml::scalar::{count, text};
use crate::yaml::value::{Fields, Value};

const TURNS: RangeInclusive<u32> = 1..=1_000;

pub(super) fn read_prompt(value: &Value<'_>, outside: &Outside<'_>) -> Option<ModelAction> {
    let mut fields = value.fields()?;
    let prompt = prompt(&mut fields, outside);
    fields.end();
    prompt.map(ModelAction::Prompt)
}

pub(super) fn read_agent(value: &Value<'_>, outside: &Outside<'_>) -> Option<ModelAction> {
    let mut fields = value.fields()?;
    let prompt = prompt(&mut fields, outside);
    let tool_surface = fields.get("tool_surface").map_or(Some(None), |surface| read_surface(&surface).map(Some));
    let max_turns = fields.get("max_turns").map_or(Some(None), |turns| turns.read(count(TURNS)).map(Some));
    fields.end();
    Some(ModelAction::Agent(Agent { prompt: prompt?, tool_surface: tool_surface?, max_turns: max_turns? }))
}

pub(super) fn read_mcp_tool(value: &Value<'_>) -> Option<ModelAction> {
    let mut fields = value.fields()?;
    let server = fields.require("server").and_then(|server| server.read(text("the name of a server")));
    let tool = fields.require("tool").and_then(|tool| tool.read(text("the name of a tool")));
    let input = fields.get("input").map_or(Some(Map::new()), |input| object(&input));
    fields.end();
    Some(ModelAction::McpTool(McpTool { server: server?, tool: tool?, input: input? }))
}

fn prompt(fields: &mut Fields<'_>, outside: &Outside<'_>) -> Option<Prompt> {
    let template = fields.require("template").and_then(|template| template.read(text("what is asked")));
    let system_prompt = fields.read_or("system_prompt", None, optional("instructions that come before the prompt"));
    let model = fields.get("model").map_or(Some(None), |model| read_model(&model, outside).map(Some));
    Some(Prompt { template: template?, system_prompt: system_prompt?, model: model? })
}

fn read_model(value: &Value<'_>, outside: &Outside<'_>) -> Option<Model> {
    let mut fields = value.clone().secret_unless_map().fields()?;
    let provider = fields.read_or("provider", None, optional("the name of a provider"));
    let name = fields.read_or("name", None, optional("the name of a model"));
    let base_url = fields.read_or("base_url", None, optional("the URL of a server"));
    let key = match fields.get("key").map(Value::secret) {
        Some(key) => key.read(|key| Ok(Some(Secret::new(resolve(key, outside)?)))),
        None => Some(None),
    };
    let generation = fields.get("generation").map_or(Some(Map::new()), |value| object(&value));
    fields.end();
    Some(Model { provider: provider?, name: name?, base_url: base_url?, key: key?, generation: generation? })
}

fn read_surface(value: &Value<'_>) -> Option<ToolSurface> {
    let mut fields = value.fields()?;
    let mut names = |list: &'static str| match fields.get(list) {
        Some(list) => list.list(|name| name.read(text("the name of a tool"))),
        None => Some(Vec::new()),
    };
    let (allowlist, denylist) = (names("allowlist"), names("denylist"));
    fields.end();
    Some(ToolSurface { allowlist: allowlist?, denylist: denylist? })
}

fn optional(what: &'static str) -> impl Fn(&str) -> Result<Option<String>, Mismatch> {
    move |written| text(what)(written).map(Some)
}

fn object(value: &Value<'_>) -> Option<Map<String, Json>> {
    let read = value.json()?;
    if let Json::Object(object) = read {
        return Some(object);
    }
    value.wrong(Mismatch::new("fields with their values").found("something else"));
    None
}
