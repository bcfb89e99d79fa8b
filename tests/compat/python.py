"""redis-py against a ring: one connection, a pool, the cluster client, both protocols; then a node dies."""

import os
import subprocess
import sys
import threading
import time

import redis
from redis.backoff import ExponentialBackoff
from redis.cluster import LoadBalancingStrategy, RedisCluster
from redis.retry import Retry

HOST, PORT = "127.0.0.1", int(os.environ["ANNULUS_PORT"])


def plain(client):
    client.delete("py:s", "py:n", "py:set", "py:h", "py:lock", "py:f")
    assert client.set("py:s", "v", ex=100) is True
    assert client.get("py:s") == b"v"
    assert 95 <= client.ttl("py:s") <= 100
    assert client.set("py:lock", "a", nx=True) is True
    assert client.set("py:lock", "b", nx=True) is None
    assert client.set("py:lock", "c", xx=True, get=True) == b"a"
    assert client.incr("py:n") == 1 and client.incrby("py:n", 9) == 10 and client.decr("py:n") == 9
    assert client.incrbyfloat("py:f", 1.5) == 1.5
    assert client.sadd("py:set", "a", "b", "c") == 3 and client.srem("py:set", "c") == 1
    assert client.smembers("py:set") == {b"a", b"b"} and client.sismember("py:set", "a")
    assert client.smismember("py:set", ["a", "x"]) == [1, 0]
    assert client.hset("py:h", mapping={"f": "1", "g": "2"}) == 2
    assert client.hgetall("py:h") == {b"f": b"1", b"g": b"2"}
    assert client.hincrby("py:h", "f", 4) == 5 and client.hdel("py:h", "g") == 1
    assert dict(client.hscan_iter("py:h")) == {b"f": b"5"}
    assert client.type("py:h") == b"hash" and client.expire("py:h", 50) and client.persist("py:h")
    assert client.getdel("py:lock") == b"c" and not client.exists("py:lock")
    try:
        client.incr("py:set")
        raise AssertionError("no WRONGTYPE")
    except redis.ResponseError as error:
        assert str(error).startswith("WRONGTYPE"), error
    pipe = client.pipeline(transaction=False)
    for number in range(500):
        pipe.set(f"py:p{number}", number)
        pipe.get(f"py:p{number}")
    replies = pipe.execute()
    assert replies[1::2] == [str(number).encode() for number in range(500)]
    assert set(client.scan_iter(match="py:p*", count=500)) >= {f"py:p{n}".encode() for n in range(500)}
    assert "annulus_version" in client.info() if not isinstance(client, RedisCluster) else True


def threads(make):
    """No increment is lost, whatever node takes it."""
    make().delete("py:total")

    def add():
        client = make()
        for _ in range(100):
            client.incr("py:total")

    workers = [threading.Thread(target=add) for _ in range(6)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    assert int(make().get("py:total")) == 600, make().get("py:total")


def through_a_death(client):
    """Writes that were answered are there after a node has been killed; the client goes on by itself."""
    written, failed, end, killed = [], 0, time.time() + 6, False
    number = 0
    while time.time() < end:
        number += 1
        if not killed and number == 50:
            killed = True
            subprocess.run(os.environ["ANNULUS_KILL"], shell=True, check=True)
        try:
            client.set(f"py:d{number}", number)
            written.append(number)
        except (redis.RedisError, OSError):
            failed += 1
            time.sleep(0.05)
    for number in written:
        for attempt in range(100):
            try:
                assert client.get(f"py:d{number}") == str(number).encode(), number
                break
            except (redis.RedisError, OSError):
                time.sleep(0.1)
        else:
            raise AssertionError(f"{number} cannot be read")
    assert len(written) > 60, f"only {len(written)} written, {failed} failed"
    return f"{len(written)} written, {failed} failed"


def main():
    retry = dict(retry=Retry(ExponentialBackoff(cap=0.5), 20), retry_on_error=[redis.ConnectionError, redis.TimeoutError])
    for protocol in (2, 3):
        plain(redis.Redis(HOST, PORT, protocol=protocol))
        plain(RedisCluster(HOST, PORT, protocol=protocol))
        print(f"redis-py {redis.__version__}, RESP{protocol}: plain and cluster")
    ports = [PORT, PORT + 1, PORT + 2]
    counter = iter(range(10**6))
    threads(lambda: redis.Redis(HOST, ports[next(counter) % 3]))
    threads(lambda: RedisCluster(HOST, PORT))
    print("redis-py: no increment lost")
    cluster = RedisCluster(HOST, PORT, socket_timeout=2)
    print("redis-py cluster:", through_a_death(cluster))
    cluster = RedisCluster(HOST, PORT, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN)
    cluster.set("py:r", "x")
    assert all(cluster.get("py:r") == b"x" for _ in range(20))
    print("redis-py plain:", through_a_death(redis.Redis(HOST, PORT, socket_timeout=2, **retry)))


sys.exit(main())
