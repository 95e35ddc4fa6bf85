use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tokio::time::timeout;

use super::*;
use crate::domain::dialect::Dialect;

/// Far more than a change takes to be seen.
const PATIENCE: Duration = Duration::from_secs(20);

struct Scene {
    folder: TempDir,
    followed: Followed,
    work: tokio::task::JoinHandle<()>,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.work.abort();
    }
}

fn no_variable(_: &str) -> Option<String> {
    None
}

fn hooks(ids: &[&str], more: &str) -> String {
    let hooks =
        ids.iter().map(|id| format!("  - {{ id: {id}, on: a, run: {{ http: {{ url: \"http://h/\"{more} }} }} }}\n"));
    format!("version: 1\nhooks:\n{}", hooks.collect::<String>())
}

impl Scene {
    /// Follows `path` of a folder that `prepare` fills.
    fn start(path: &str, prepare: impl Fn(&Path)) -> Self {
        Self::start_in(Dialect::Native, path, prepare)
    }

    fn start_in(dialect: Dialect, path: &str, prepare: impl Fn(&Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let files = Files { path: folder.path().join(path), dialect };
        let local =
            Local { hint_max: Duration::ZERO, egress: Arc::default(), callbacks: Arc::default(), env: no_variable };
        let catalog =
            files.load(&Terms { hint_max: Duration::ZERO, env: &no_variable, egress: &[], callbacks: None }).unwrap();
        let (followed, following) = follow(Source::File(files, catalog), local);
        Self { folder, followed, work: tokio::spawn(following) }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    fn ids(&self) -> Vec<String> {
        self.followed.hooks.borrow().hooks().iter().map(|hook| hook.id.to_string()).collect()
    }

    async fn until(&mut self, ids: &[&str]) {
        let same = |set: &Arc<HookSet>| set.hooks().iter().map(|hook| hook.id.as_str()).eq(ids.iter().copied());
        timeout(PATIENCE, self.followed.hooks.wait_for(same)).await.expect("hooks in time").unwrap();
    }

    async fn until_refused(&mut self, found: &str) {
        let told = |standing: &Standing| {
            standing.refused.as_ref().is_some_and(|refusal| format!("{:?}", refusal.problems).contains(found))
        };
        timeout(PATIENCE, self.followed.standing.wait_for(told)).await.expect("a refusal in time").unwrap();
    }
}

#[tokio::test]
async fn edits_of_a_file_count() {
    let mut scene = Scene::start("h.yaml", |folder| fs::write(folder.join("h.yaml"), hooks(&["a"], "")).unwrap());
    assert_eq!(scene.ids(), ["a"]);
    scene.write("h.yaml", &hooks(&["a", "b"], ""));
    scene.until(&["a", "b"]).await;
    // As editors do it: a new file takes the old one's place.
    scene.write("h.yaml~", &hooks(&["c"], ""));
    fs::rename(scene.folder.path().join("h.yaml~"), scene.folder.path().join("h.yaml")).unwrap();
    scene.until(&["c"]).await;
}

#[tokio::test]
async fn what_is_wrong_is_told_and_the_last_good_one_goes_on() {
    let mut scene = Scene::start("h.yaml", |folder| fs::write(folder.join("h.yaml"), hooks(&["a"], "")).unwrap());
    scene.write("h.yaml", "version: 1\nhooks: [{ id: b, on: a, rum: {} }]\n");
    scene.until_refused("`rum`").await;
    assert_eq!(scene.ids(), ["a"]);
    fs::remove_file(scene.folder.path().join("h.yaml")).unwrap();
    scene.until_refused("No such file").await;
    assert_eq!(scene.ids(), ["a"]);
    scene.write("h.yaml", &hooks(&["a", "b"], ""));
    scene.until(&["a", "b"]).await;
    timeout(PATIENCE, scene.followed.standing.wait_for(|standing| standing.refused.is_none())).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_folder_gains_and_loses_files() {
    let mut scene = Scene::start("", |folder| fs::write(folder.join("1.yaml"), hooks(&["a"], "")).unwrap());
    scene.write("2.yml", &hooks(&["b"], ""));
    scene.until(&["a", "b"]).await;
    fs::remove_file(scene.folder.path().join("1.yaml")).unwrap();
    scene.until(&["b"]).await;
}

#[tokio::test(start_paused = true)]
async fn half_of_a_folder_is_no_catalog() {
    let mut scene = Scene::start("", |folder| fs::write(folder.join("0.yaml"), hooks(&["a"], "")).unwrap());
    for number in 1..10 {
        scene.write(&format!("{number}.yaml"), &hooks(&[&format!("a{number}")], ""));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    scene.followed.hooks.changed().await.unwrap();
    assert_eq!(scene.ids(), ["a", "a1", "a2", "a3", "a4", "a5", "a6", "a7", "a8", "a9"]);
}

#[tokio::test(start_paused = true)]
async fn files_that_never_stop_changing_are_told_of() {
    let mut scene = Scene::start("h.yaml", |folder| fs::write(folder.join("h.yaml"), hooks(&["a"], "")).unwrap());
    let told = |scene: &Scene| scene.followed.standing.borrow().away.is_some();
    let mut text = hooks(&["a", "b"], "");
    for round in 0..110 {
        assert!(!told(&scene) || round > 95, "told in round {round}");
        text.push_str("#\n");
        scene.write("h.yaml", &text);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(told(&scene));
    assert_eq!(scene.ids(), ["a"]);
    scene.until(&["a", "b"]).await;
    assert!(!told(&scene));
}

/// A `ConfigMap` in Kubernetes: files are links into a folder that is a link, and that one is replaced.
#[tokio::test]
async fn links_that_are_swapped_count() {
    use std::os::unix::fs::symlink;
    let version = |folder: &Path, name: &str, text: &str| {
        fs::create_dir(folder.join(name)).unwrap();
        fs::write(folder.join(name).join("h.yaml"), text).unwrap();
    };
    let mut scene = Scene::start("", |folder| {
        version(folder, "..1", &hooks(&["a"], ""));
        symlink("..1", folder.join("..data")).unwrap();
        symlink("..data/h.yaml", folder.join("h.yaml")).unwrap();
    });
    let folder = scene.folder.path().to_owned();
    version(&folder, "..2", &hooks(&["b"], ""));
    symlink("..2", folder.join("..new")).unwrap();
    fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    scene.until(&["b"]).await;
}

#[tokio::test]
async fn a_secret_in_a_file_is_read_again() {
    let more =
        |folder: &Path| format!(", headers: {{ authorization: \"${{file:{}}}\" }}", folder.join("secret").display());
    let mut scene = Scene::start("h.yaml", |folder| {
        fs::write(folder.join("secret"), "one").unwrap();
        fs::write(folder.join("h.yaml"), hooks(&["a"], &more(folder))).unwrap();
    });
    let revision = scene.followed.hooks.borrow().revision().clone();
    let first = scene.followed.hooks.borrow().get("a").unwrap().clone();
    scene.write("secret", "two");
    let other = |set: &Arc<HookSet>| set.get("a").is_some_and(|hook| *hook != first);
    timeout(PATIENCE, scene.followed.hooks.wait_for(other)).await.unwrap().unwrap();
    assert_eq!(*scene.followed.hooks.borrow().revision(), revision, "the same texts are the same revision");
    // A secret that is gone is no catalog; once it is there again, it is.
    fs::remove_file(scene.folder.path().join("secret")).unwrap();
    scene.until_refused("secret").await;
    scene.write("secret", "three");
    timeout(PATIENCE, scene.followed.standing.wait_for(|standing| standing.refused.is_none())).await.unwrap().unwrap();
}

#[test]
fn a_cache_is_of_use_for_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let documents = vec![Document::native("h.yaml", hooks(&["a"], ""))];
    let stored = crate::catalog::revisions::Stored::new(17, documents, 1, "me", None, 0);
    let of = |namespace: &str, max_age| Cache {
        path: folder.path().join("catalog.json"),
        namespace: namespace.to_owned(),
        max_age,
    };
    let cache = |max_age| of("fleet", max_age);
    let young = cache(Duration::from_hours(1));
    assert!(young.load().unwrap_err().contains("cannot be read"));
    young.store(&stored).unwrap();
    assert_eq!(young.load().unwrap(), stored);
    let refusal = of("other", Duration::from_hours(1)).load().unwrap_err();
    assert!(
        refusal.contains("expected") && refusal.contains("of namespace \"other\", found that of \"fleet\""),
        "{refusal}"
    );
    std::thread::sleep(Duration::from_millis(5));
    assert!(cache(Duration::from_millis(1)).load().unwrap_err().contains("catalog.max_age is 1ms"));
    fs::write(folder.path().join("catalog.json"), "{").unwrap();
    assert!(young.load().unwrap_err().contains("holds no catalog"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

/// The settings of Kheish with a command hook of each name.
fn hooks_of_kheish(names: &[&str]) -> String {
    let hook =
        |name: &&str| format!(r#"{{ "name": "{name}", "executor": {{ "type": "command", "command": "true" }} }}"#);
    let hooks: Vec<String> = names.iter().map(hook).collect();
    format!(r#"{{ "schema_version": 1, "hooks": {{ "stop": [{}] }} }}"#, hooks.join(", "))
}

#[tokio::test]
async fn settings_of_kheish_are_followed_as_they_are() {
    let prepare = |folder: &Path| fs::write(folder.join("hooks.json"), hooks_of_kheish(&["a"])).unwrap();
    for path in ["hooks.json", "."] {
        let mut scene = Scene::start_in(Dialect::Kheish, path, prepare);
        assert_eq!(scene.ids(), ["kheish.stop.a"]);
        scene.write("hooks.json", &hooks_of_kheish(&["a", "b"]));
        scene.until(&["kheish.stop.a", "kheish.stop.b"]).await;
        // What Kheish would start without is refused here, and the last good one goes on.
        scene.write("hooks.json", &hooks_of_kheish(&[" "]));
        let refused = |standing: &Standing| standing.refused.is_some();
        let standing = timeout(PATIENCE, scene.followed.standing.wait_for(refused)).await.unwrap().unwrap().clone();
        let reason = standing.refused.unwrap().reason;
        assert!(reason.contains("found Stop[0]: ") && reason.contains("hook name"), "{reason}");
        assert_eq!(scene.ids(), ["kheish.stop.a", "kheish.stop.b"]);
        scene.write("hooks.json", &hooks_of_kheish(&["c"]));
        scene.until(&["kheish.stop.c"]).await;
        if path == "." {
            scene.write("ours.yaml", &hooks(&["ours"], ""));
            scene.until(&["kheish.stop.c", "ours"]).await;
        }
    }
}
