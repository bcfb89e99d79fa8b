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

/** Jedis and Lettuce against a ring: one connection and the cluster client of each, then a node dies. */
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

  static void throughADeath(String name, Store store) throws Exception {
    var written = new ArrayList<Integer>();
    int failed = 0;
    long end = System.currentTimeMillis() + 6000;
    for (int number = 1; System.currentTimeMillis() < end; number++) {
      if (number == 50) equal(new ProcessBuilder("sh", "-c", System.getenv("ANNULUS_KILL")).start().waitFor(), 0);
      try {
        store.set(name + number, "" + number);
        written.add(number);
      } catch (RuntimeException error) {
        failed++;
        Thread.sleep(50);
      }
    }
    for (int number : written) {
      for (int attempt = 0; ; attempt++) {
        try {
          equal(store.get(name + number), "" + number);
          break;
        } catch (RuntimeException error) {
          if (attempt > 100) throw error;
          Thread.sleep(100);
        }
      }
    }
    if (written.size() < 60) throw new AssertionError("only " + written.size() + " written, " + failed + " failed");
    System.out.println(name + " " + written.size() + " written through a node's death, " + failed + " failed");
  }

  public static void main(String[] arguments) throws Exception {
    int port = Integer.parseInt(System.getenv("ANNULUS_PORT"));
    try (var client = new JedisPooled("127.0.0.1", port)) {
      jedis("jedis:", client);
    }
    var configuration = DefaultJedisClientConfig.builder().socketTimeoutMillis(2000).build();
    try (var cluster = new JedisCluster(Set.of(new HostAndPort("127.0.0.1", port)), configuration, 20, new ConnectionPoolConfig())) {
      jedis("jediscluster:", cluster);
      throughADeath("Jedis cluster:", new Store() {
        public void set(String key, String value) { cluster.set(key, value); }
        public String get(String key) { return cluster.get(key); }
      });
    }
    var uri = RedisURI.builder().withHost("127.0.0.1").withPort(port).withTimeout(Duration.ofSeconds(3)).build();
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
    throughADeath("Lettuce cluster:", new Store() {
      public void set(String key, String value) { cluster.set(key, value); }
      public String get(String key) { return cluster.get(key); }
    });
    System.exit(0);
  }
}
