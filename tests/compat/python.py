"""redis-py against a ring: one connection, a pool, the cluster client, both protocols, while the ring changes and nodes die."""

import os
import subprocess
import sys
import threading
import time

import redis
from redis.backoff import ExponentialBackoff
from redis.cluster import LoadBalancingStrategy, RedisCluster
from redis.retry import Retry

HOST, PORT = os.environ["ANNULUS_HOST"], int(os.environ["ANNULUS_PORT"])
NODES = [address.rsplit(":", 1) for address in os.environ["ANNULUS_NODES"].split()]


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


def through(name, what, client):
    """Writes number after number while the script ANNULUS_<what> runs. What was acknowledged has to be there after."""
    written, failed, number, pause = [], 0, 0, 0.0
    began = last = time.time()
    script = subprocess.Popen(os.environ[f"ANNULUS_{what}"], shell=True)
    while script.poll() is None or time.time() < began + 6:
        number += 1
        try:
            client.set(f"py:{name}:{what}:{number}", number)
            written.append(number)
            pause, last = max(pause, time.time() - last), time.time()
        except (redis.RedisError, OSError) as error:
            failed += 1
            print(f"redis-py {name}: {error!r}")
            time.sleep(0.05)
    assert script.returncode == 0, f"the script {what} failed"
    for number in written:
        for attempt in range(100):
            try:
                got = client.get(f"py:{name}:{what}:{number}")
                assert got == str(number).encode(), f"{number} is {got}"
                break
            except (redis.RedisError, OSError):
                time.sleep(0.1)
        else:
            raise AssertionError(f"{number} cannot be read")
    print(f"redis-py {name}, {what}: {len(written)} written, {failed} failed, longest pause {pause:.1f} s")
    assert len(written) >= 60, "too few"
    assert what != "RESIZE" or failed == 0, "failures while nobody died"


def main():
    retry = dict(retry=Retry(ExponentialBackoff(cap=0.5), 20), retry_on_error=[redis.ConnectionError, redis.TimeoutError])
    for protocol in (2, 3):
        plain(redis.Redis(HOST, PORT, protocol=protocol))
        plain(RedisCluster(HOST, PORT, protocol=protocol))
        print(f"redis-py {redis.__version__}, RESP{protocol}: plain and cluster")
    counter = iter(range(10**6))
    threads(lambda: redis.Redis(*NODES[next(counter) % 3]))
    threads(lambda: RedisCluster(HOST, PORT))
    print("redis-py: no increment lost")
    cluster = RedisCluster(HOST, PORT, socket_timeout=2)
    through("cluster", "RESIZE", cluster)
    through("cluster", "TROUBLE", cluster)
    cluster = RedisCluster(HOST, PORT, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN)
    cluster.set("py:r", "x")
    assert all(cluster.get("py:r") == b"x" for _ in range(20))
    through("plain", "KILL", redis.Redis(HOST, PORT, socket_timeout=2, **retry))


sys.exit(main())
