//! The HTTP request of one attempt, ready to be sent, or to be shown.

use std::borrow::Cow;

use url::Url;

use super::headers::AUTHORIZATION;
use super::hook::{Hook, HttpAction};
use super::invocation::Invocation;
use super::template::{Text, Variables};

/// In place of what is computed for each attempt.
const SIGNED: &str = "[made for each attempt]";

/// What an http hook sends.
#[derive(Clone, PartialEq, Eq)]
pub struct Request<'a> {
    pub url: Cow<'a, Url>,
    /// Those of the hook: lower-case names, and values that may hold secrets.
    pub headers: Vec<(&'a str, Cow<'a, str>)>,
    /// `None`: the wire payload.
    pub body: Option<Cow<'a, str>>,
}

/// The same for people: values of variables and files are hidden, and those that nobody knows here named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub method: &'static str,
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// `None`: the wire payload.
    pub body: Option<String>,
}

impl<'a> Request<'a> {
    /// The request of an action for one invocation.
    ///
    /// # Errors
    /// A template cannot be rendered for it, or gives what cannot be sent. No value is shown.
    pub fn new(action: &'a HttpAction, hook: &Hook, invocation: &Invocation, key: &str) -> Result<Self, String> {
        let print = Print::new(action.texts(), hook, invocation, key)?;
        let render = |text| print.text(text);
        let url = if action.text.is_template() {
            let text = render(&action.text).map_err(|error| format!("the hook's `url`: {error}"))?;
            Cow::Owned(checked(&text, action.url.expose())?)
        } else {
            Cow::Borrowed(action.url.expose())
        };
        let header = |(name, text): &'a (String, Text)| {
            let value = render(text).map_err(|error| format!("the hook's header `{name}`: {error}"))?;
            Ok((name.as_str(), value))
        };
        let headers = action.headers.iter().map(header).collect::<Result<_, String>>()?;
        let body = action.body.as_ref().map(render).transpose();
        Ok(Self { url, headers, body: body.map_err(|error| format!("the hook's `body`: {error}"))? })
    }
}

impl Shown {
    /// The request of an action for one invocation, as [`Request::new`] has it.
    ///
    /// # Errors
    /// As there.
    pub fn new(action: &HttpAction, hook: &Hook, invocation: &Invocation, key: &str) -> Result<Self, String> {
        Request::new(action, hook, invocation, key)?;
        let print = Print::shown(hook, invocation, key)?;
        let render = |text: &Text| print.text(text).map(Cow::into_owned);
        let header = |(name, text): &(String, Text)| Ok((name.clone(), render(text)?));
        let mut headers = action.headers.iter().map(header).collect::<Result<Vec<_>, String>>()?;
        headers.extend(action.oauth.iter().map(|oauth| {
            (AUTHORIZATION.to_owned(), format!("Bearer [a token from {}, by client credentials]", oauth.server()))
        }));
        headers.extend(action.signing.headers().map(|name| (name.to_owned(), SIGNED.to_owned())));
        let (url, body) = (render(&action.text)?, action.body.as_ref().map(render).transpose()?);
        Ok(Self { method: action.method.name(), url, headers, body })
    }
}

/// How the texts of one attempt are printed.
pub(super) struct Print {
    /// Only templates need to see the event.
    variables: Option<Variables>,
    hide: bool,
}

impl Print {
    /// With what is hidden. `texts` are all that will be printed.
    ///
    /// # Errors
    /// The event cannot be read.
    pub(super) fn new<'a>(
        mut texts: impl Iterator<Item = &'a Text>,
        hook: &Hook,
        invocation: &Invocation,
        key: &str,
    ) -> Result<Self, String> {
        let variables = texts.any(Text::is_template).then(|| variables(hook, invocation, key)).transpose()?;
        Ok(Self { variables, hide: false })
    }

    /// For people.
    ///
    /// # Errors
    /// The event cannot be read.
    pub(super) fn shown(hook: &Hook, invocation: &Invocation, key: &str) -> Result<Self, String> {
        Ok(Self { variables: Some(variables(hook, invocation, key)?), hide: true })
    }

    /// # Errors
    /// One sentence, without any value.
    pub(super) fn text<'a>(&self, text: &'a Text) -> Result<Cow<'a, str>, String> {
        match &self.variables {
            Some(variables) if self.hide => text.render_shown(variables).map(Cow::Owned),
            Some(variables) if text.is_template() => text.render(variables).map(Cow::Owned),
            _ => Ok(Cow::Borrowed(text.prefix())),
        }
    }
}

fn variables(hook: &Hook, invocation: &Invocation, key: &str) -> Result<Variables, String> {
    Variables::new(&invocation.event.body, &hook.id, &hook.labels, key, invocation.at.attempt)
}

/// What an event puts into a URL leads to no other server, and to no other folder than the hook says.
fn checked(text: &str, base: &Url) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| "the hook's `url` is none for this event".to_owned())?;
    let same = url.scheme() == base.scheme()
        && url.host() == base.host()
        && url.port() == base.port()
        && url.username().is_empty()
        && url.password().is_none();
    if !same {
        return Err("the hook's `url` leads to another server for this event".to_owned());
    }
    let path = text.split(['?', '#']).next().unwrap_or_default();
    let is_step = |segment: &str| matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if path.split(['/', '\\']).any(is_step) {
        return Err("the hook's `url` has a `.` or `..` in its path for this event".to_owned());
    }
    Ok(url)
}
