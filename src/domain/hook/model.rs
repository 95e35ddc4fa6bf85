//! What a hook asks a model, or a tool of an MCP server. No executor carries it out yet, so that such a hook is disabled.

use serde_json::{Map, Value};

use crate::domain::secret::Secret;

/// A hook that thinks.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelAction {
    /// One turn of a model.
    Prompt(Prompt),
    /// Turns of a model that may use tools.
    Agent(Agent),
    McpTool(McpTool),
}

/// One turn of a model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt {
    pub template: String,
    pub system_prompt: Option<String>,
    /// `None`: the model of the settings.
    pub model: Option<Model>,
}

/// A model, and how it is to answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    pub provider: Option<String>,
    pub name: Option<String>,
    pub base_url: Option<String>,
    pub key: Option<Secret<String>>,
    /// Parameters of the answer, such as `max_output_tokens` and `temperature`.
    pub generation: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    pub prompt: Prompt,
    /// `None`: no tools.
    pub tool_surface: Option<ToolSurface>,
    pub max_turns: Option<u32>,
}

/// The tools that an agent may use: those that are allowed and not denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSurface {
    pub allowlist: Vec<String>,
    pub denylist: Vec<String>,
}

/// One call of a tool.
#[derive(Debug, Clone, PartialEq)]
pub struct McpTool {
    pub server: String,
    pub tool: String,
    pub input: Map<String, Value>,
}

impl ModelAction {
    /// What hooks files call it.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Prompt(_) => "prompt",
            Self::Agent(_) => "agent",
            Self::McpTool(_) => "mcp_tool",
        }
    }

    /// What the model is asked; a tool is called without.
    #[must_use]
    pub const fn prompt(&self) -> Option<&Prompt> {
        match self {
            Self::Prompt(prompt) | Self::Agent(Agent { prompt, .. }) => Some(prompt),
            Self::McpTool(_) => None,
        }
    }

    /// Who answers, safe to show.
    #[must_use]
    pub fn target(&self) -> String {
        let of = |prompt: &Prompt| {
            let model = prompt.model.as_ref();
            let [provider, name] =
                [model.and_then(|model| model.provider.as_deref()), model.and_then(|model| model.name.as_deref())];
            [provider, name].into_iter().flatten().collect::<Vec<_>>().join("/")
        };
        let whom = match self {
            Self::Prompt(prompt) => of(prompt),
            Self::Agent(agent) => of(&agent.prompt),
            Self::McpTool(tool) => format!("{}/{}", tool.server, tool.tool),
        };
        format!("{}:{whom}", self.kind())
    }
}
