//! Texts that may hold templates in Jinja, and values that stand outside of the hooks file.
//!
//! Compiled when the catalog is read. What stands behind `${...}` is put in as it is and never read as a template. What a
//! template prints is escaped for where it stands, so that an event cannot break out of its place: percent-encoded in a
//! URL, as the inside of a string in JSON. A render is bounded in time, in memory, and in what it prints.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::{fmt, io};

use bytes::Bytes;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use url::Url;

use super::escape;
use super::id::HookId;
use super::secret::Secret;
use super::text_error::Refusal;

mod environment;
mod scan;
mod tree;

use tree::Node;

/// Longest text with a template in it.
const BYTES_MAX: usize = 64 * 1024;
/// What a template prints at most.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Instructions of one render, for an event of up to [`SMALL_BYTES`]: some tens of milliseconds. Of a larger one a single
/// instruction may look at more, so that there are fewer.
const FUEL: u64 = 100_000;
const SMALL_BYTES: u64 = 2048;
/// Names that a template knows.
pub const NAMES: [&str; 4] = ["event", "hook", "key", "attempt"];
/// The name of a list that no template of a hook can use: the event, and the values that are not in the file.
const HIDDEN: &str = "hidden";
const NAME: &str = "text";
/// What is shown in place of what is hidden.
const SHOWN: &str = "[hidden]";
const ERROR_CHARS_MAX: usize = 200;

/// A part of a text as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Literal(String),
    /// The value of a variable or a file.
    Hidden(Secret<String>),
    /// One that is not known to this process: how it is written (`${env:NAME}`), and what stands in for it in checks.
    Unknown {
        written: String,
        guess: &'static str,
    },
}

impl Piece {
    /// What it stands for.
    #[must_use]
    pub const fn value(&self) -> &str {
        match self {
            Self::Literal(text) => text.as_str(),
            Self::Hidden(value) => value.expose().as_str(),
            Self::Unknown { guess, .. } => guess,
        }
    }

    fn shown(&self) -> Cow<'_, str> {
        match self {
            Self::Literal(text) => text.into(),
            Self::Hidden(_) => SHOWN.into(),
            Self::Unknown { written, .. } => escape::name(written).into(),
        }
    }
}

/// Where a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In a URL: values are percent-encoded.
    Url,
    /// In JSON: texts are escaped as the inside of a string, everything else is JSON itself.
    Json,
    /// Anywhere else: as it is.
    Plain,
}

/// A text that is the same for every event, or a template.
#[derive(Clone, PartialEq)]
pub struct Text {
    pieces: Vec<Piece>,
    prefix: Secret<String>,
    form: Form,
    program: Option<Program>,
}

/// A compiled template. Two of the same text are the same.
#[derive(Clone)]
struct Program(Arc<Environment<'static>>);

impl PartialEq for Program {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Text {
    /// Compiles a text.
    ///
    /// # Errors
    /// What is wrong with its template.
    pub fn new(pieces: Vec<Piece>, form: Form) -> Result<Self, Refusal> {
        let program = if scan::is_template(&pieces) { Some(compile(&pieces, form)?) } else { None };
        let prefix = Secret::new(prefix(&pieces));
        Ok(Self { pieces, prefix, form, program })
    }

    /// A text without a template.
    #[must_use]
    pub fn plain(text: impl Into<String>) -> Self {
        let text = Secret::new(text.into());
        Self { prefix: text.clone(), pieces: vec![Piece::Hidden(text)], form: Form::Plain, program: None }
    }

    #[must_use]
    pub const fn is_template(&self) -> bool {
        self.program.is_some()
    }

    #[must_use]
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// How the values are written that are not known to this process.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Unknown { written, .. } => Some(written.as_str()),
            Piece::Literal(_) | Piece::Hidden(_) => None,
        })
    }

    /// Of a URL whose server is not known to this process: its beginning up to the path, as it is written.
    fn unknown_origin(&self) -> Option<String> {
        let (mut origin, mut is_unknown) = (String::new(), false);
        for piece in &self.pieces {
            if let Piece::Unknown { .. } = piece {
                is_unknown = true;
                origin.push_str(&piece.shown());
                continue;
            }
            let text = piece.value();
            let server = text.find("://").map_or(0, |at| at + "://".len());
            let path = text[server..].find(['/', '?', '#']).map(|at| server + at);
            origin.push_str(&text[..path.unwrap_or(text.len())]);
            if path.is_some() {
                break;
            }
        }
        is_unknown.then_some(origin)
    }

    /// Of this text of a URL, which is `url`: scheme, host and port; of a server that is not known to this process, how it
    /// is written.
    #[must_use]
    pub fn origin(&self, url: &Url) -> String {
        if let Some(origin) = self.unknown_origin() {
            let Some((before, server)) = origin.rsplit_once('@') else { return origin };
            // Of users and passwords nothing.
            return before
                .split_once("://")
                .map_or_else(|| server.to_owned(), |(scheme, _)| format!("{scheme}://{server}"));
        }
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
    }

    /// What stands before the first template, with its secrets: all of it if there is none.
    #[must_use]
    pub const fn prefix(&self) -> &str {
        self.prefix.expose().as_str()
    }

    /// As it is for one attempt, with its secrets.
    ///
    /// # Errors
    /// One sentence, without any value.
    pub fn render(&self, variables: &Variables) -> Result<String, String> {
        self.print(variables, false)
    }

    /// As [`Text::render`], without its secrets: for people.
    ///
    /// # Errors
    /// One sentence, without any value.
    pub fn render_shown(&self, variables: &Variables) -> Result<String, String> {
        self.print(variables, true)
    }

    fn print(&self, variables: &Variables, hide: bool) -> Result<String, String> {
        fn text(piece: &Piece, hide: bool) -> Cow<'_, str> {
            if hide { piece.shown() } else { piece.value().into() }
        }
        let Some(Program(environment)) = &self.program else {
            return Ok(self.pieces.iter().map(|piece| text(piece, hide)).collect());
        };
        let hidden = self.pieces.iter().filter(|piece| !matches!(piece, Piece::Literal(_)));
        let values = hidden.map(|piece| Value::from_safe_string(text(piece, hide).into_owned()));
        let context = minijinja::context! {
            event => variables.event, hook => variables.hook, key => variables.key, attempt => variables.attempt,
            hidden => [variables.event.clone()].into_iter().chain(values).collect::<Vec<_>>(),
        };
        let mut printed = Bounded(Vec::new());
        let mut scarce;
        let environment = if variables.bytes > SMALL_BYTES {
            scarce = Environment::clone(environment);
            scarce.set_fuel(Some(FUEL * SMALL_BYTES / variables.bytes));
            &scarce
        } else {
            environment
        };
        let template = environment.get_template(NAME).map_err(|error| failure(&error))?;
        template.render_captured_to(context, &mut printed).map_err(|error| failure(&error))?;
        String::from_utf8(printed.0).map_err(|_| "the template prints no text".to_owned())
    }
}

/// It may hold secrets, and what a person wrote in place of one.
impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(SHOWN)
    }
}

/// The variables that the templates of one attempt see.
#[derive(Debug, Clone)]
pub struct Variables {
    event: Value,
    hook: Value,
    key: Value,
    attempt: Value,
    /// As large as the event is.
    bytes: u64,
}

impl Variables {
    /// The event as JSON, the hook's id and labels, the key that the receiver knows repeats by, the attempt's number.
    ///
    /// # Errors
    /// The event cannot be read.
    pub fn new(
        event: &Bytes,
        hook: &HookId,
        labels: &BTreeMap<String, String>,
        key: &str,
        attempt: u32,
    ) -> Result<Self, String> {
        let bytes = u64::try_from(event.len()).unwrap_or(u64::MAX);
        let event = Node::root(event).ok_or("the event cannot be read")?;
        Ok(Self {
            event,
            hook: minijinja::context! { id => hook.as_str(), labels => labels },
            key: Value::from(key),
            attempt: Value::from(attempt),
            bytes,
        })
    }
}

fn prefix(pieces: &[Piece]) -> String {
    let mut prefix = String::new();
    for piece in pieces {
        match piece {
            Piece::Hidden(_) | Piece::Unknown { .. } => prefix.push_str(piece.value()),
            Piece::Literal(text) => {
                let Some(end) = scan::first(text) else {
                    prefix.push_str(text);
                    continue;
                };
                prefix.push_str(&text[..end]);
                break;
            }
        }
    }
    prefix
}

fn compile(pieces: &[Piece], form: Form) -> Result<Program, Refusal> {
    let bytes: usize = pieces.iter().map(|piece| if let Piece::Literal(text) = piece { text.len() } else { 0 }).sum();
    if bytes > BYTES_MAX {
        return Err(Refusal::new(format!("a template of at most {BYTES_MAX} bytes"), format!("one of {bytes}")));
    }
    scan::check(pieces)?;
    // The author's own names, before those are put in that stand for what is hidden.
    let own: String = pieces
        .iter()
        .filter_map(|piece| if let Piece::Literal(text) = piece { Some(text.as_str()) } else { None })
        .collect();
    let mut environment = environment::new(form);
    let broken = |error: &Error| {
        let line = error.line().map(|line| format!(" on line {line} of it")).unwrap_or_default();
        let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
        Refusal::new(
            "a template in Jinja",
            format!("one with a mistake: {}{line}", escape::sentence(&what, ERROR_CHARS_MAX)),
        )
    };
    let mut names: Vec<String> = environment
        .template_from_str(&own)
        .map_err(|error| broken(&error))?
        .undeclared_variables(false)
        .into_iter()
        .filter(|name| !NAMES.contains(&name.as_str()))
        .collect();
    names.sort_unstable();
    if let Some(name) = names.into_iter().next() {
        let found = format!("`{}`", escape::name(&name));
        let refusal = Refusal::new("names that exist: `event`, `hook`, `key`, `attempt`", found);
        return Err(Refusal { unknown: Some((name, &NAMES)), ..refusal });
    }
    let mut count = 0;
    let source = pieces.iter().map(|piece| match piece {
        Piece::Literal(text) => text.clone(),
        Piece::Hidden(_) | Piece::Unknown { .. } => {
            count += 1;
            format!("{{{{{HIDDEN}[{count}]}}}}")
        }
    });
    let source: String = source.collect();
    environment.add_template_owned(NAME, source).map_err(|error| broken(&error))?;
    Ok(Program(Arc::new(environment)))
}

/// Takes so much and no more.
struct Bounded(Vec<u8>);

impl io::Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other("too long"));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What went wrong, without any value: what the library says in detail may show some.
fn failure(error: &Error) -> String {
    let what = match error.kind() {
        ErrorKind::UndefinedError => "it uses a value that the event does not have",
        ErrorKind::OutOfFuel => "it takes too long",
        ErrorKind::WriteFailure => "it prints more than 1 MiB",
        ErrorKind::InvalidOperation => "it does with a value what cannot be done with it",
        ErrorKind::UnknownFilter | ErrorKind::UnknownTest | ErrorKind::UnknownFunction | ErrorKind::UnknownMethod => {
            "it calls something that does not exist"
        }
        _ => "it cannot be rendered",
    };
    let line = error.line().map(|line| format!(" on line {line}")).unwrap_or_default();
    format!("the template fails{line}: {what}")
}

#[cfg(test)]
mod tests;
