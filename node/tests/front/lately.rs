//! Commands that came to Redis after the version of the redis-server that others are compared with, and those about hash
//! slots, which that server has only as a cluster.

use crate::raw::{check, connect, exchange};
use annulus_node::config::Limits;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn keys_of_a_hash_slot() {
    let (_served, mut connection) = connect(Limits::default()).await;
    for key in 0..50 {
        exchange(
            &mut connection,
            format!("SET {{a}}{key} 1\r\nSET other{key} 1\r\n").as_bytes(),
            "+OK\r\n+OK\r\n",
        )
        .await;
    }
    exchange(&mut connection, b"DEL {a}7\r\nCLUSTER KEYSLOT a\r\n", ":1\r\n:15495\r\n").await;
    exchange(&mut connection, b"CLUSTER COUNTKEYSINSLOT 15495\r\n", ":49\r\n").await;
    exchange(&mut connection, b"CLUSTER COUNTKEYSINSLOT 0\r\nCLUSTER GETKEYSINSLOT 0 10\r\n", ":0\r\n*0\r\n")
        .await;
    let keys = exchange_array(&mut connection, b"CLUSTER GETKEYSINSLOT 15495 100\r\n").await;
    assert_eq!(keys.len(), 49);
    assert!(keys.iter().all(|key| key.starts_with("{a}") && key != "{a}7"), "{keys:?}");
    let few = exchange_array(&mut connection, b"CLUSTER GETKEYSINSLOT 15495 3\r\n").await;
    assert_eq!(few, keys[..3]);
    check(&[
        ("CLUSTER COUNTKEYSINSLOT 16384", "-ERR Invalid slot"),
        ("CLUSTER COUNTKEYSINSLOT x", "-ERR Invalid or out of range slot"),
        ("CLUSTER GETKEYSINSLOT 1 -1", "-ERR Invalid slot or number of keys"),
        ("CLUSTER GETKEYSINSLOT 1", "-ERR wrong number of arguments for 'cluster|getkeysinslot' command"),
        ("CLUSTER REPLICAS 1234", "-ERR Unknown node 1234"),
    ])
    .await;
}

/// Sends a request whose reply is an array of strings.
async fn exchange_array(connection: &mut TcpStream, request: &[u8]) -> Vec<String> {
    connection.write_all(request).await.unwrap();
    let mut reader = tokio::io::BufReader::new(connection);
    let mut line = async || {
        let mut line = String::new();
        reader.read_line(&mut line).await.unwrap();
        line.trim_end().to_owned()
    };
    let count: usize = line().await.strip_prefix('*').unwrap().parse().unwrap();
    let mut items = Vec::new();
    for _ in 0..count {
        line().await;
        items.push(line().await);
    }
    items
}

#[tokio::test]
async fn what_came_to_redis_lately() {
    check(&[
        ("MSETEX 2 a 1 b 2 EX 100", ":1"),
        ("MGET a b", "*2\r\n$1\r\n1\r\n$1\r\n2"),
        ("TTL b", ":100"),
        ("MSETEX 1 a 3 KEEPTTL", ":1"),
        ("TTL a", ":100"),
        ("MSETEX 1 a 4", ":1"),
        ("TTL a", ":-1"),
        ("MSETEX 2 a 4", "-ERR wrong number of key-value pairs"),
        ("MSETEX 0 a 4", "-ERR invalid numkeys value"),
        ("MSETEX 1 a 4 EX 0", "-ERR invalid expire time in 'msetex' command"),
        ("SET d abc", "+OK"),
        ("DIGEST d", "$16\r\n78af5f94892f3950"),
        ("DIGEST nothing", "$-1"),
        ("SET d x IFDEQ 0000000000000000", "$-1"),
        ("SET d abd IFDEQ 78AF5F94892F3950 GET", "$3\r\nabc"),
        ("SET d abc IFDNE 78af5f94892f3950", "+OK"),
        ("SET d x IFDNE 78af5f94892f3950", "$-1"),
        ("SET d x IFDEQ 78af", "-ERR must be exactly 16 hexadecimal characters"),
        ("SET d x IFDEQ", "-ERR syntax error"),
        ("SET new x IFDNE 78af5f94892f3950", "+OK"),
        ("DELEX d IFEQ x", ":0"),
        ("DELEX d IFDNE 78af5f94892f3950", ":0"),
        ("DELEX d IFDEQ 78af5f94892f3950", ":1"),
        ("DELEX d IFNE x", ":0"),
        ("DELEX new", ":1"),
        ("DELEX new BLAH x", "-ERR Invalid condition"),
        ("HSET h a 1 b 2 c 3", ":3"),
        ("DELEX h IFEQ x", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
        ("HGETDEL h FIELDS 3 a x a", "*3\r\n$1\r\n1\r\n$-1\r\n$-1"),
        ("HKEYS h", "*2\r\n$1\r\nb\r\n$1\r\nc"),
        ("HGETDEL h FIELDS 2 b c", "*2\r\n$1\r\n2\r\n$1\r\n3"),
        ("EXISTS h", ":0"),
        ("HGETDEL h FIELDS 1 b", "*1\r\n$-1"),
        ("HGETDEL h FIELDS 2 b", "-ERR The `numfields` parameter must match the number of arguments"),
        ("HGETDEL h FIELDS 0 b", "-ERR Number of fields must be a positive integer"),
        ("HGETDEL h BLAH 1 b", "-ERR Mandatory argument FIELDS is missing or not at the right position"),
        ("COMMAND GETKEYS MSETEX 2 a 1 b 2", "*2\r\n$1\r\na\r\n$1\r\nb"),
        ("COMMAND GETKEYSANDFLAGS DELEX a", "*1\r\n*2\r\n$1\r\na\r\n*2\r\n+RW\r\n+delete"),
    ])
    .await;
}
