//! `hookfleet bench`: everything arrives once, and nothing of it is left.

use serde_json::Value;
use tokio::sync::Mutex;

use crate::fleet::Site;
use crate::pipeline::{Place, site};
use crate::servers::redis::Cluster;
use crate::servers::shared;
use crate::servers::slots::alone;

/// One at a time on the shared broker: each looks for what any of them left.
static ALONE: Mutex<()> = Mutex::const_new(());

/// The figures of a small load, checked for sense.
fn bench(site: &Site, more: &[&str]) -> Value {
    let arguments =
        ["bench", "--events", "500", "--fan-out", "2", "--payload-bytes", "100", "--limit", "100", "--json"];
    let shown = site.ok(&[&arguments[..], more].concat());
    println!("{shown}");
    let figures: Value = serde_json::from_str(&shown).unwrap();
    let number = |name: &str| figures.get(name).and_then(Value::as_f64).unwrap_or_else(|| panic!("{name}: {shown}"));
    assert_eq!((number("events"), number("lost"), number("duplicated")), (500.0, 0.0, 0.0));
    let latencies = ["p50_ms", "p90_ms", "p99_ms", "max_ms"].map(number);
    assert!(latencies[0] > 0.0 && latencies.is_sorted(), "{shown}");
    assert!(number("cpu_us_per_event") > 0.0 && number("published_per_second") >= number("events_per_second"));
    figures
}

#[tokio::test]
async fn a_bench_on_servers_leaves_nothing() {
    let _alone = alone(&ALONE).await;
    let (rabbit, redis) = shared().await;
    let site = site(Place::Servers).await;
    assert_eq!(bench(&site, &[]).get("broker").unwrap(), "servers");
    for what in ["list_queues", "list_exchanges"] {
        assert!(!rabbit.ctl(&[what, "name"]).contains("bench-"), "{what}");
    }
    let mut connection = ::redis::Client::open(redis.url()).unwrap().get_multiplexed_async_connection().await.unwrap();
    let left: Vec<String> = ::redis::cmd("KEYS").arg("bench-*").query_async(&mut connection).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn a_bench_on_a_cluster_leaves_no_key() {
    let _alone = alone(&ALONE).await;
    let ((rabbit, _), cluster) = (shared().await, Cluster::start().await);
    let site = Site::servers(rabbit, &cluster.servers[0]).set("HOOKFLEET_REDIS_CLUSTER", "true");
    bench(&site, &[]);
    for server in &cluster.servers {
        let left: Vec<String> = server.ask("KEYS bench-*").await;
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn a_bench_on_a_file_leaves_nothing() {
    let site = site(Place::File).await;
    let folder = site.folder.path().join("temporary");
    std::fs::create_dir(&folder).unwrap();
    let site = site.set("TMPDIR", folder.to_str().unwrap());
    let figures = bench(&site, &["--rate", "250"]);
    assert_eq!(figures.get("broker").unwrap(), "file");
    let rate = figures.get("published_per_second").unwrap().as_f64().unwrap();
    assert!(rate <= 260.0, "{rate}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert!(!site.folder.path().join("hookfleet.db").exists(), "the user's own file is left alone");
}
