//! Hooks files on a disk: ours, and the one of another system, which stays as it is.

use std::convert::Infallible;
use std::path::PathBuf;

use super::{Catalog, Document, Terms, read};
use crate::config::Settings;
use crate::dialect::import::Source;
use crate::domain::dialect::Dialect;
use crate::yaml;
use crate::yaml::problem::{At, Mismatch, Problems};
use crate::yaml::report::Report;

/// A hooks file, or a folder of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub path: PathBuf,
    /// Whose words a single file is in. A folder may have the file of that system beside ours.
    pub dialect: Dialect,
}

impl Files {
    /// Files of this project's own format.
    #[must_use]
    pub fn native(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), dialect: Dialect::Native }
    }

    /// Those that the settings name.
    #[must_use]
    pub fn of(settings: &Settings) -> Self {
        Self::at(&settings.hooks, settings)
    }

    /// Those at this path, in the dialect that the settings name.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>, settings: &Settings) -> Self {
        Self { path: path.into(), dialect: settings.catalog.dialect }
    }

    /// Each file and its dialect: the file itself, or of a folder the file of the other system, and behind it all `*.yaml`
    /// and `*.yml`, by name.
    ///
    /// # Errors
    /// The folder cannot be read, or has none.
    fn each(&self) -> Result<Vec<(PathBuf, Dialect)>, Mismatch> {
        let foreign = Source::of(self.dialect).filter(|_| self.path.is_dir());
        let Some(foreign) = foreign.map(|source| self.path.join(source.file())).filter(|path| path.exists()) else {
            return self.without_foreign();
        };
        let ours = yaml::files(&self.path).unwrap_or_default().into_iter().map(|path| (path, Dialect::Native));
        Ok(std::iter::once((foreign, self.dialect)).chain(ours).collect())
    }

    /// The file itself, or those of ours in the folder.
    fn without_foreign(&self) -> Result<Vec<(PathBuf, Dialect)>, Mismatch> {
        let dialect = if self.path.is_dir() { Dialect::Native } else { self.dialect };
        match (yaml::files(&self.path), Source::of(self.dialect)) {
            (Ok(files), _) => Ok(files.into_iter().map(|path| (path, dialect)).collect()),
            (Err(mismatch), Some(source)) if self.path.is_dir() => {
                let expected = format!("a folder with {} or *.yaml files", source.file());
                Err(Mismatch { expected, ..mismatch })
            }
            (Err(mismatch), _) => Err(mismatch),
        }
    }

    /// All files, or the path itself where they cannot be listed.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let files = self.each().map(|each| each.into_iter().map(|(path, _)| path).collect());
        files.unwrap_or_else(|_| vec![self.path.clone()])
    }

    /// Their texts.
    ///
    /// # Errors
    /// The file, the folder or one in it cannot be read.
    pub fn open(&self) -> Result<Vec<Document>, Problems> {
        let files = self.each().map_err(|mismatch| problem(&self.path.display().to_string(), mismatch))?;
        let mut documents = Vec::new();
        for (path, dialect) in files {
            let name = path.display().to_string();
            match yaml::read_file(&path, yaml::BYTES_MAX) {
                Ok(text) => documents.push(Document { name, text, dialect }),
                Err(mismatch) => return Err(problem(&name, mismatch)),
            }
        }
        Ok(documents)
    }

    /// Reads hooks from them.
    ///
    /// # Errors
    /// Every problem of all files.
    pub fn load(&self, terms: &Terms<'_>) -> Result<Catalog, Problems> {
        read(&self.open()?, terms)
    }
}

/// What is wrong with a file as a whole.
pub(super) fn problem(file: &str, mismatch: Mismatch) -> Problems {
    let report = Report::new(file, "");
    report.push(At::File, "", mismatch);
    match report.into_result::<Infallible>(None) {
        Err(problems) => problems,
        Ok(nothing) => match nothing {},
    }
}
