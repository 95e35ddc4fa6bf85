//! Copies of the file that everything is kept in without a broker.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};
use serde_json::Value;
use tokio::time::sleep;

use crate::pipeline::{Place, Stage, hook, site, stage, until_letters};
use crate::publishing::event;
use crate::sink::{Answer, Sink};

const LETTERS: usize = 20;

fn count(file: &Path, table: &str) -> rusqlite::Result<i64> {
    let conn = Connection::open_with_flags(file, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    conn.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))
}

/// A copy of the file alone is no backup, but what is older than some seconds is in it.
async fn until_in_the_file_itself(file: &Path, table: &str) {
    let (copy, began) = (file.with_extension("copy"), Instant::now());
    loop {
        fs::copy(file, &copy).unwrap();
        match count(&copy, table) {
            Ok(found) if found > 0 => return,
            found => assert!(began.elapsed() < Duration::from_secs(60), "the copy has {table}: {found:?}"),
        }
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_backup_is_whole_while_its_owner_works() {
    let sink = Sink::start().await;
    sink.behave(|_, _| Answer::status(500));
    let hooks = [
        hook(&sink, "fails", "a", ", retry: { attempts: 1 }, paused: false"),
        hook(&sink, "waits", "b", ", paused: true"),
    ];
    let site = site(Place::File).await.hooks(&hooks.join("\n")).set("HOOKFLEET_BREAKER_FAILURES", "0");
    let to = site.folder.path().join("backup.db");
    let to_name = to.to_str().unwrap();

    let none = site.run(&["backup", to_name]);
    let said = String::from_utf8_lossy(&none.stderr).into_owned();
    assert!(none.status.code() == Some(1) && said.contains("there is no file"), "{said}");
    assert!(
        !to.exists() && !site.folder.path().join("hookfleet.db").exists(),
        "a backup creates nothing that it copies"
    );

    let Stage { site, worker, publisher } = stage(Place::File, site).await;
    let file = site.folder.path().join("hookfleet.db");
    until_in_the_file_itself(&file, "meta").await;
    publisher.send_all((0..LETTERS).map(|id| event("a", &id.to_string()))).await;
    publisher.send_all((0..LETTERS).map(|id| event("b", &id.to_string()))).await;
    let letters = until_letters(&site, LETTERS, "open").await;
    until_in_the_file_itself(&file, "dead_letters").await;

    let is_copied = async {
        let (site, to_name) = (site.clone(), to_name.to_owned());
        tokio::task::spawn_blocking(move || site.ok(&["backup", &to_name])).await.unwrap()
    };
    let goes_on = async {
        for id in 0.. {
            publisher.send(event("nobody.wants.it", &id.to_string())).await;
        }
    };
    let said = tokio::select! {
        said = is_copied => said,
        () = goes_on => unreachable!(),
    };
    assert!(said.starts_with(&format!("{to_name} is a copy of ")), "{said}");
    assert_eq!(count(&to, "dead_letters").unwrap(), i64::try_from(LETTERS).unwrap());
    assert!(!site.folder.path().join("backup.db.partial").exists());

    let before = fs::read(&to).unwrap();
    let again = site.run(&["backup", to_name]);
    let said = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.status.code() == Some(1) && said.contains("is there already"), "{said}");
    assert_eq!(fs::read(&to).unwrap(), before);

    drop(worker); // killed: what is restored is the copy
    sink.behave(|_, _| Answer::status(200));
    let restored = site.set("HOOKFLEET_EMBEDDED_PATH", to_name);
    let restored = restored.hooks(&[hook(&sink, "fails", "a", ""), hook(&sink, "waits", "b", "")].join("\n"));
    let _worker = restored.worker().await;
    let ids = |letters: &[Value]| {
        let mut ids: Vec<_> = letters.iter().map(|letter| letter["letter"]["id"].to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&restored.letters()), ids(&letters));
    let waited = |calls: &[crate::sink::Call]| calls.iter().filter(|call| call.hook == "waits").count() == LETTERS;
    sink.until("what waited in the copy", Duration::from_secs(60), waited).await;
}
