//! What a worker serves while Redis says this, that or nothing. The Redis of these tests is one that nobody listens at.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::catalog::watch::{Followed, Local, Source};
use crate::redis::connection::fixture::nowhere;
use crate::redis::error::Failure;

struct Scene {
    folder: TempDir,
    follower: Follower,
    followed: Followed,
}

fn hooks(id: &str, more: &str) -> String {
    format!("version: 1\nhooks:\n  - {{ id: {id}, on: a, run: {{ http: {{ url: \"http://h/\"{more} }} }} }}\n")
}

/// A header with what a file holds.
fn secret(file: &Path) -> String {
    format!(", headers: {{ authorization: \"${{file:{}}}\" }}", file.display())
}

fn revision(number: u64, text: String) -> Stored {
    Stored::new(number, vec![Document::native("h.yaml", text)], 1, "me", None, 0)
}

type Current = Result<Option<Pointer>, RevisionsError>;

fn away() -> Current {
    Err(RevisionsError::Redis(Failure::Timeout))
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let link = nowhere();
        let (path, namespace) = (folder.path().join("catalog.json"), "fleet".to_owned());
        let cache = Some(Cache { path, namespace, max_age: Duration::from_hours(1) });
        let shared = || Shared { revisions: Arc::new(Revisions::new(link.clone(), "fleet")), cache: cache.clone() };
        let local =
            Local { hint_max: Duration::ZERO, egress: Arc::default(), callbacks: Arc::default(), env: |_| None };
        let (board, followed) = Board::new(&Source::Redis(shared()), local.into());
        Self { folder, follower: Follower::new(board, shared()), followed }
    }

    fn cached(self, stored: &Stored) -> Self {
        self.follower.shared.cache.as_ref().unwrap().store(stored).unwrap();
        self
    }

    /// Redis says that this is the current one, and gives it.
    async fn told(&mut self, stored: Stored) {
        let pointer = stored.about.pointer();
        self.follower.latest = Some(stored.into());
        self.look(Ok(Some(pointer))).await;
    }

    async fn look(&mut self, current: Current) {
        self.follower.look(current).await;
        self.follower.tell();
    }

    fn in_force(&self) -> Option<String> {
        let halted = self.follower.place.reason().is_some();
        (!halted).then(|| self.followed.hooks.borrow().revision().to_string())
    }

    fn halt(&self) -> String {
        self.follower.place.reason().unwrap_or_default()
    }
}

#[tokio::test]
async fn a_cache_is_served_only_if_nothing_newer_is_known() {
    let mut scene = Scene::new().cached(&revision(17, hooks("old", "")));
    scene.told(revision(18, hooks("new", ", headers: { a: \"${env:NOWHERE}\" }"))).await;
    assert_eq!(scene.in_force(), None);
    assert!(scene.halt().contains("it is refused here"), "{}", scene.halt());
    scene.look(away()).await;
    assert_eq!(scene.in_force(), None, "r18 is known to be current");

    // Known by its number alone, it is newer all the same.
    let mut scene = Scene::new().cached(&revision(17, hooks("old", "")));
    scene.look(Ok(Some(revision(18, hooks("new", "")).about.pointer()))).await;
    scene.look(away()).await;
    assert_eq!(scene.in_force(), None);
    assert!(scene.halt().contains("catalog.cache holds r17, but r18 is current"), "{}", scene.halt());

    let mut scene = Scene::new().cached(&revision(17, hooks("old", "")));
    scene.look(away()).await;
    assert_eq!(scene.in_force().as_deref(), Some("r17"), "{}", scene.halt());
    assert!(scene.followed.standing.borrow().cached);
}

#[tokio::test]
async fn another_one_stays_known_while_the_old_one_is_read_again() {
    let mut scene = Scene::new();
    scene.told(revision(17, hooks("old", ""))).await;
    scene.look(Ok(Some(revision(18, hooks("new", "")).about.pointer()))).await;
    scene.follower.latest.as_mut().unwrap().seen = None; // as if a file had changed
    scene.look(away()).await;
    let newest = scene.follower.place.behind.as_ref().map(|(_, pointer)| pointer.number);
    assert_eq!((scene.in_force().as_deref(), newest), (Some("r17"), Some(18)));
}

#[tokio::test]
async fn secrets_are_read_again_whatever_becomes_of_redis() {
    let answers: [fn() -> Current; 2] = [away, || Ok(None)];
    for current in answers {
        let mut scene = Scene::new();
        let file = scene.folder.path().join("secret");
        fs::write(&file, "one").unwrap();
        scene.told(revision(17, hooks("a", &secret(&file)))).await;
        let hook = |scene: &Scene| scene.followed.hooks.borrow().get("a").unwrap().clone();
        let first = hook(&scene);
        scene.look(current()).await;
        assert_eq!(hook(&scene), first);
        fs::write(&file, "another").unwrap();
        scene.look(current()).await;
        assert_ne!(hook(&scene), first);
    }
}

#[tokio::test]
async fn a_cache_is_loaded_once_and_taken_when_its_secrets_are_there() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    let mut scene = Scene::new().cached(&revision(17, hooks("a", &secret(&file))));
    scene.look(away()).await;
    assert_eq!(scene.in_force(), None);
    assert!(scene.halt().contains("what catalog.cache holds is refused here"), "{}", scene.halt());
    fs::remove_file(&scene.follower.shared.cache.as_ref().unwrap().path).unwrap();
    scene.look(away()).await;
    assert!(scene.halt().contains("what catalog.cache holds is refused here"), "{}", scene.halt());
    fs::write(&file, "one").unwrap();
    scene.look(away()).await;
    assert_eq!(scene.in_force().as_deref(), Some("r17"), "{}", scene.halt());
}

/// A pipe that nobody writes to stands for a mount whose server is gone.
#[tokio::test(start_paused = true)]
async fn who_hangs_on_a_disk_is_judged_all_the_same() {
    let mut scene = Scene::new();
    let (halt, told) = (scene.follower.board.halt.clone(), scene.follower.told.subscribe());
    let judging = tokio::spawn(judge(told, halt.clone()));
    scene.told(revision(17, hooks("old", ""))).await;
    let mut halt = halt.subscribe();
    halt.wait_for(Option::is_none).await.unwrap();

    let pipe = scene.folder.path().join("secret");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let newest = revision(18, hooks("new", &secret(&pipe)));
    let halted = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        halt.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    };
    let time = async {
        loop {
            tokio::time::advance(Duration::from_secs(1)).await;
            tokio::task::yield_now().await;
        }
    };
    {
        let mut read = std::pin::pin!(scene.told(newest));
        tokio::select! {
            biased;
            reason = halted => assert!(reason.contains("r18 is current for more than 10s, r17 is in force"), "{reason}"),
            () = &mut read => panic!("it was read"),
            () = time => {}
        }
        let written = std::thread::spawn(move || fs::write(pipe, "at last"));
        read.await;
        written.join().unwrap().unwrap();
    }
    assert_eq!(scene.in_force().as_deref(), Some("r18"));
    judging.abort();
}
