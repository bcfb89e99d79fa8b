import io.lettuce.core.RedisClient;
import io.lettuce.core.RedisURI;
import io.lettuce.core.ReadFrom;
import io.lettuce.core.SetArgs;
import io.lettuce.core.cluster.ClusterClientOptions;
import io.lettuce.core.cluster.ClusterTopologyRefreshOptions;
import io.lettuce.core.cluster.RedisClusterClient;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import redis.clients.jedis.ConnectionPoolConfig;
import redis.clients.jedis.DefaultJedisClientConfig;
import redis.clients.jedis.HostAndPort;
import redis.clients.jedis.JedisCluster;
import redis.clients.jedis.JedisPooled;
import redis.clients.jedis.UnifiedJedis;
import redis.clients.jedis.exceptions.JedisDataException;
import redis.clients.jedis.params.SetParams;

/** Jedis and Lettuce against a ring: one connection and the cluster client of each, while the ring changes and nodes die. */
public final class Compat {
  interface Store {
    void set(String key, String value);

    String get(String key);
  }

  static void equal(Object got, Object wanted) {
    if (!wanted.equals(got)) throw new AssertionError("got " + got + "; wanted " + wanted);
  }

  static void jedis(String name, UnifiedJedis client) {
    for (String end : List.of("a", "n", "s", "h", "l")) client.del(name + end);
    equal(client.set(name + "a", "x", SetParams.setParams().ex(100)), "OK");
    equal(client.get(name + "a"), "x");
    equal(client.setnx(name + "l", "1"), 1L);
    equal(client.setnx(name + "l", "2"), 0L);
    equal(client.incrBy(name + "n", 5), 5L);
    equal(client.sadd(name + "s", "a", "b"), 2L);
    equal(client.smembers(name + "s"), Set.of("a", "b"));
    equal(client.hset(name + "h", Map.of("f", "1")), 1L);
    equal(client.hincrBy(name + "h", "f", 2), 3L);
    equal(client.hgetAll(name + "h"), Map.of("f", "3"));
    try {
      client.incr(name + "s");
      throw new AssertionError("no WRONGTYPE");
    } catch (JedisDataException error) {
      equal(error.getMessage().startsWith("WRONGTYPE"), true);
    }
    try (var pipeline = client.pipelined()) {
      var replies = new ArrayList<redis.clients.jedis.Response<String>>();
      for (int at = 0; at < 300; at++) {
        pipeline.set(name + "p" + at, "" + at);
        replies.add(pipeline.get(name + "p" + at));
      }
      pipeline.sync();
      for (int at = 0; at < 300; at++) equal(replies.get(at).get(), "" + at);
    }
    System.out.println("Jedis: " + name);
  }

  /** Writes number after number while the script ANNULUS_<what> runs. What was acknowledged has to be there after. */
  static void through(String name, String what, Store store) throws Exception {
    var written = new ArrayList<Integer>();
    int failed = 0;
    long began = System.currentTimeMillis(), last = began, pause = 0;
    var script = new ProcessBuilder("sh", "-c", System.getenv("ANNULUS_" + what)).inheritIO().start();
    for (int number = 1; script.isAlive() || System.currentTimeMillis() < began + 6000; number++) {
      try {
        store.set(name + what + number, "" + number);
        written.add(number);
        pause = Math.max(pause, System.currentTimeMillis() - last);
        last = System.currentTimeMillis();
      } catch (RuntimeException error) {
        failed++;
        System.out.println(name + " " + error);
        Thread.sleep(50);
      }
    }
    equal(script.waitFor(), 0);
    for (int number : written) {
      for (int attempt = 0; ; attempt++) {
        try {
          equal(store.get(name + what + number), "" + number);
          break;
        } catch (RuntimeException error) {
          if (attempt > 100) throw error;
          Thread.sleep(100);
        }
      }
    }
    System.out.printf("%s %s: %d written, %d failed, longest pause %.1f s%n", name, what, written.size(), failed, pause / 1e3);
    if (written.size() < 60) throw new AssertionError("too few");
    if (what.equals("RESIZE") && failed > 0) throw new AssertionError("failures while nobody died");
  }

  public static void main(String[] arguments) throws Exception {
    String host = System.getenv("ANNULUS_HOST");
    int port = Integer.parseInt(System.getenv("ANNULUS_PORT"));
    try (var client = new JedisPooled(host, port)) {
      jedis("jedis:", client);
    }
    var configuration = DefaultJedisClientConfig.builder().socketTimeoutMillis(2000).build();
    try (var cluster = new JedisCluster(Set.of(new HostAndPort(host, port)), configuration, 20, new ConnectionPoolConfig())) {
      jedis("jediscluster:", cluster);
      var store = new Store() {
        public void set(String key, String value) { cluster.set(key, value); }
        public String get(String key) { return cluster.get(key); }
      };
      for (var what : List.of("RESIZE", "TROUBLE")) through("Jedis cluster:", what, store);
    }
    var uri = RedisURI.builder().withHost(host).withPort(port).withTimeout(Duration.ofSeconds(3)).build();
    var client = RedisClient.create(uri);
    var sync = client.connect().sync();
    sync.del("lettuce:n", "lettuce:s", "lettuce:h", "lettuce:l");
    equal(sync.set("lettuce:l", "1", SetArgs.Builder.nx()), "OK");
    equal(sync.set("lettuce:l", "2", SetArgs.Builder.nx()) == null, true);
    equal(sync.incr("lettuce:n"), 1L);
    equal(sync.sadd("lettuce:s", "a"), 1L);
    equal(sync.smembers("lettuce:s"), Set.of("a"));
    equal(sync.hset("lettuce:h", Map.of("f", "v")), 1L);
    equal(sync.hgetall("lettuce:h"), Map.of("f", "v"));
    System.out.println("Lettuce: plain");
    var refresh = ClusterTopologyRefreshOptions.builder().enableAllAdaptiveRefreshTriggers()
        .adaptiveRefreshTriggersTimeout(Duration.ofMillis(200)).enablePeriodicRefresh(Duration.ofSeconds(1)).build();
    var clusterClient = RedisClusterClient.create(uri);
    clusterClient.setOptions(ClusterClientOptions.builder().topologyRefreshOptions(refresh).build());
    var connection = clusterClient.connect();
    connection.setReadFrom(ReadFrom.ANY);
    var cluster = connection.sync();
    for (int at = 0; at < 200; at++) cluster.set("lettuce:c" + at, "" + at);
    for (int at = 0; at < 200; at++) equal(cluster.get("lettuce:c" + at), "" + at);
    System.out.println("Lettuce: cluster, reads from all nodes");
    var store = new Store() {
      public void set(String key, String value) { cluster.set(key, value); }
      public String get(String key) { return cluster.get(key); }
    };
    for (var what : List.of("RESIZE", "TROUBLE")) through("Lettuce cluster:", what, store);
    System.exit(0);
  }
}
