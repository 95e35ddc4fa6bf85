//! Hooks files on a disk: ours, and the one of another system, which stays as it is.

use std::convert::Infallible;
use std::fs::DirEntry;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

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

    /// Each file and its dialect: the file itself, or of a folder those of the other system, and behind them all other `*.yaml`
    /// and `*.yml`, by name.
    ///
    /// # Errors
    /// The folder cannot be read, or has none.
    fn each(&self) -> Result<Vec<(PathBuf, Dialect)>, Mismatch> {
        let source = Source::of(self.dialect).filter(|_| self.path.is_dir());
        let names =
            source.into_iter().flat_map(|source| [Some(source.file()), source.found().map(|found| found.listing)]);
        let theirs = names.flatten().map(|name| self.path.join(name));
        let theirs: Vec<PathBuf> = theirs.filter(|path| path.exists()).collect();
        if theirs.is_empty() && self.scripts().is_empty() {
            return self.without_foreign();
        }
        let ours = yaml::files(&self.path).unwrap_or_default();
        let ours = ours.into_iter().filter(|path| !theirs.contains(path)).map(|path| (path, Dialect::Native));
        let ours: Vec<_> = ours.collect();
        Ok(theirs.into_iter().map(|path| (path, self.dialect)).chain(ours).collect())
    }

    /// Scripts that the other system would find in the folder, unless a file lists them.
    fn scripts(&self) -> Vec<String> {
        let found = Source::of(self.dialect).and_then(Source::found).filter(|_| self.path.is_dir());
        let found = found.filter(|found| !self.path.join(found.listing).exists());
        found.map_or_else(Vec::new, |found| scripts(&self.path.join(found.folder)))
    }

    /// The listing of these scripts.
    fn listing(&self) -> Option<Document> {
        let found = Source::of(self.dialect)?.found()?;
        let scripts = Some(self.scripts()).filter(|scripts| !scripts.is_empty())?;
        let name = self.path.join(found.listing).display().to_string();
        Some(Document { name, text: found.list(&scripts), dialect: self.dialect })
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
        let mut files: Vec<PathBuf> = files.unwrap_or_else(|_| vec![self.path.clone()]);
        if let Some(found) = Source::of(self.dialect).and_then(Source::found) {
            let folder = self.path.join(found.folder);
            files.extend(self.scripts().iter().map(|script| folder.join(script)));
        }
        files
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
        documents.extend(self.listing());
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

/// Files in this folder, and executable ones in folders in it, by name. One that cannot be read has none.
pub fn scripts(folder: &Path) -> Vec<String> {
    let entries = |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let name = |entry: &DirEntry| entry.file_name().into_string().ok();
    let mut scripts: Vec<String> = Vec::new();
    for entry in entries(folder) {
        let path = entry.path();
        if path.is_file() {
            scripts.extend(name(&entry));
            continue;
        }
        let inside = entries(&path).filter(|file| is_executable(&file.path()));
        let inside = inside.filter_map(|file| Some(format!("{}/{}", name(&entry)?, name(&file)?)));
        scripts.extend(inside);
    }
    scripts.sort();
    scripts
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
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
