//! The `redis` crate as a client that knows nothing of Annulus.

use crate::memory::{Memory, Served, serve};
use annulus_node::config::Limits;
use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use std::collections::{BTreeSet, HashMap};

async fn connect(protocol: &str) -> (Served, MultiplexedConnection) {
    let served = serve(Memory::new(Limits::default())).await;
    let client = redis::Client::open(format!("redis://{}/?protocol={protocol}", served.address)).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    (served, connection)
}

#[tokio::test]
async fn both_versions_of_the_protocol() {
    for protocol in ["resp2", "resp3"] {
        let (_served, mut connection) = connect(protocol).await;
        let () = connection.set("a", "1").await.unwrap();
        let () = connection.mset(&[("b", "2"), ("c", "3")]).await.unwrap();
        let values: Vec<Option<String>> = connection.mget(&["a", "b", "x"]).await.unwrap();
        assert_eq!(values, [Some("1".into()), Some("2".into()), None]);
        let () = connection.set_ex("d", "4", 100).await.unwrap();
        assert_eq!(connection.ttl::<_, i64>("d").await.unwrap(), 100);
        assert!(connection.expire::<_, bool>("a", 50).await.unwrap());
        assert_eq!(connection.del::<_, i64>(&["a", "b", "x"]).await.unwrap(), 2);
        let settings: HashMap<String, String> =
            redis::cmd("CONFIG").arg("GET").arg("append*").query_async(&mut connection).await.unwrap();
        assert_eq!(settings["appendfsync"], "always");
        let information: String = redis::cmd("INFO").query_async(&mut connection).await.unwrap();
        assert!(information.contains("redis_mode:cluster\r\n") && information.contains("annulus_epoch:7\r\n"));
        assert_eq!(connection.incr::<_, _, i64>("n", 2).await.unwrap() % 2, 0);
        let error = connection.rename::<_, _, ()>("a", "b").await.unwrap_err();
        assert!(error.to_string().contains("ANNULUS unsupported: 'rename"), "{error}");
    }
}

#[tokio::test]
async fn binary_keys_and_values_of_megabytes() {
    let (_served, mut connection) = connect("resp2").await;
    let key: Vec<u8> = (0..=255).collect();
    let value: Vec<u8> = (0..5_000_000u32).map(|byte| (byte % 251) as u8).collect();
    let () = connection.set(&key, &value).await.unwrap();
    assert!(connection.get::<_, Vec<u8>>(&key).await.unwrap() == value);
    let () = connection.set("", "empty key").await.unwrap();
    assert_eq!(connection.get::<_, String>("").await.unwrap(), "empty key");
}

#[tokio::test]
async fn scan_returns_every_key_that_is_there_all_along() {
    let (_served, mut connection) = connect("resp2").await;
    let there: BTreeSet<String> = (0..2000).map(|key| format!("there:{key}")).collect();
    for key in &there {
        let () = connection.set(key, 1).await.unwrap();
    }
    let () = connection.set("", 1).await.unwrap();
    for count in [1, 7, 1000] {
        let (mut cursor, mut found, mut calls) = (String::from("0"), BTreeSet::new(), 0);
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("COUNT").arg(count);
            let (next, keys): (String, Vec<String>) = scan.query_async(&mut connection).await.unwrap();
            found.extend(keys);
            calls += 1;
            // Keys come and go meanwhile.
            let () = connection.set(format!("new:{count}:{calls}"), 1).await.unwrap();
            let _: i64 = connection.del(format!("new:{count}:{}", calls - 3)).await.unwrap();
            if next == "0" {
                break;
            }
            assert!(next.parse::<u64>().unwrap() < 1 << 53, "the cursor fits a float");
            assert!(next.parse::<u64>().unwrap() > cursor.parse::<u64>().unwrap(), "the walk goes on");
            cursor = next;
        }
        assert!(found.is_superset(&there) && found.contains(""), "COUNT {count}");
        assert!(calls <= 4 * 2100 / count + 64, "{calls} calls with COUNT {count}");
    }
    let mut matching: Vec<String> = Vec::new();
    let mut keys = connection.scan_match::<_, String>("there:1?5").await.unwrap();
    while let Some(key) = keys.next_item().await {
        matching.push(key.unwrap());
    }
    drop(keys);
    assert_eq!(matching.len(), 10);
    assert_eq!(connection.keys::<_, Vec<String>>("there:19[0-4]").await.unwrap().len(), 5);
    let random: String = redis::cmd("RANDOMKEY").query_async(&mut connection).await.unwrap();
    assert_eq!(connection.exists::<_, i64>(random).await.unwrap(), 1);
    let mut scan = redis::cmd("SCAN");
    scan.arg("0").arg("TYPE").arg("hash").arg("COUNT").arg(10_000);
    let (_, keys): (String, Vec<String>) = scan.query_async(&mut connection).await.unwrap();
    assert!(keys.is_empty());
}

#[tokio::test]
async fn an_empty_cluster_is_scanned_in_few_calls() {
    let (_served, mut connection) = connect("resp2").await;
    let (next, keys): (String, Vec<String>) =
        redis::cmd("SCAN").arg("0").query_async(&mut connection).await.unwrap();
    assert_eq!((next.as_str(), keys.len()), ("0", 0));
    let random: Option<String> = redis::cmd("RANDOMKEY").query_async(&mut connection).await.unwrap();
    assert_eq!(random, None);
}

#[tokio::test]
async fn deleted_keys_do_not_count_among_those_that_a_scan_looks_for() {
    let (_served, mut connection) = connect("resp2").await;
    for key in 0..400 {
        let () = connection.set(key, 1).await.unwrap();
    }
    for key in 0..397 {
        let () = connection.del(key).await.unwrap();
    }
    let (next, keys): (String, Vec<String>) =
        redis::cmd("SCAN").arg("0").query_async(&mut connection).await.unwrap();
    assert_eq!((next.as_str(), keys.len()), ("0", 3));
}

#[tokio::test]
async fn clients_are_listed_and_can_be_ended() {
    let (served, mut connection) = connect("resp2").await;
    let () = redis::cmd("CLIENT").arg("SETNAME").arg("first").query_async(&mut connection).await.unwrap();
    let client = redis::Client::open(format!("redis://{}/", served.address)).unwrap();
    let mut second = client.get_multiplexed_async_connection().await.unwrap();
    let id: i64 = redis::cmd("CLIENT").arg("ID").query_async(&mut second).await.unwrap();
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(&mut connection).await.unwrap();
    assert_eq!(list.lines().count(), 2, "{list}");
    assert!(list.contains(" name=first ") && list.contains(&format!("id={id} ")), "{list}");
    let killed: i64 =
        redis::cmd("CLIENT").arg("KILL").arg("ID").arg(id).query_async(&mut connection).await.unwrap();
    assert_eq!(killed, 1);
    let error = loop {
        match second.get::<_, Option<String>>("a").await {
            Ok(_) => tokio::task::yield_now().await,
            Err(error) => break error,
        }
    };
    assert!(error.is_io_error() || error.is_unrecoverable_error(), "{error}");
}
