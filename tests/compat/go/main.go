// go-redis against a ring: one connection and the cluster client, then a node dies.
package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

var ctx = context.Background()

func must[T comparable](got T, err error) func(T) {
	return func(want T) {
		if err != nil || got != want {
			panic(fmt.Sprintf("got %v, %v; want %v", got, err, want))
		}
	}
}

func check(name string, client redis.UniversalClient) {
	key := func(end string) string { return name + ":" + end }
	for _, end := range []string{"a", "n", "s", "h", "l"} {
		client.Del(ctx, key(end))
	}
	must(client.Set(ctx, key("a"), "x", time.Minute).Result())("OK")
	must(client.Get(ctx, key("a")).Result())("x")
	must(client.SetNX(ctx, key("l"), "1", 0).Result())(true)
	must(client.SetNX(ctx, key("l"), "2", 0).Result())(false)
	must(client.IncrBy(ctx, key("n"), 5).Result())(5)
	must(client.Decr(ctx, key("n")).Result())(4)
	must(client.SAdd(ctx, key("s"), "a", "b").Result())(2)
	must(client.SIsMember(ctx, key("s"), "a").Result())(true)
	must(client.SCard(ctx, key("s")).Result())(2)
	must(client.HSet(ctx, key("h"), "f", "1", "g", "2").Result())(2)
	must(client.HIncrBy(ctx, key("h"), "f", 2).Result())(3)
	must(client.HDel(ctx, key("h"), "g").Result())(1)
	must(client.HGet(ctx, key("h"), "f").Result())("3")
	must(len(client.HGetAll(ctx, key("h")).Val()), nil)(1)
	must(client.Expire(ctx, key("h"), time.Minute).Result())(true)
	must(client.Persist(ctx, key("h")).Result())(true)
	if err := client.Incr(ctx, key("s")).Err(); err == nil || err.Error()[:9] != "WRONGTYPE" {
		panic(fmt.Sprint("no WRONGTYPE: ", err))
	}
	if err := client.Get(ctx, key("nothing")).Err(); err != redis.Nil {
		panic(fmt.Sprint("no nil: ", err))
	}
	replies, err := client.Pipelined(ctx, func(pipe redis.Pipeliner) error {
		for at := 0; at < 300; at++ {
			pipe.Set(ctx, key(fmt.Sprint("p", at)), at, 0)
			pipe.Get(ctx, key(fmt.Sprint("p", at)))
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	for at := 0; at < 300; at++ {
		must(replies[2*at+1].(*redis.StringCmd).Result())(fmt.Sprint(at))
	}
	client.Del(ctx, key("total"))
	var workers sync.WaitGroup
	for worker := 0; worker < 8; worker++ {
		workers.Go(func() {
			for at := 0; at < 100; at++ {
				if err := client.Incr(ctx, key("total")).Err(); err != nil {
					panic(err)
				}
			}
		})
	}
	workers.Wait()
	must(client.Get(ctx, key("total")).Int())(800)
	fmt.Println("go-redis:", name)
}

func throughADeath(name string, client redis.UniversalClient) {
	var written []int
	failed := 0
	end := time.Now().Add(6 * time.Second)
	for number := 1; time.Now().Before(end); number++ {
		if number == 50 {
			if err := exec.Command("sh", "-c", os.Getenv("ANNULUS_KILL")).Run(); err != nil {
				panic(err)
			}
		}
		if err := client.Set(ctx, fmt.Sprint(name, ":d", number), number, 0).Err(); err == nil {
			written = append(written, number)
		} else {
			failed++
			time.Sleep(50 * time.Millisecond)
		}
	}
	for _, number := range written {
		for attempt := 0; ; attempt++ {
			got, err := client.Get(ctx, fmt.Sprint(name, ":d", number)).Int()
			if err == nil && got == number {
				break
			}
			if err == redis.Nil || err == nil || attempt > 100 {
				panic(fmt.Sprint(number, " is ", got, ", ", err))
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	if len(written) < 60 {
		panic(fmt.Sprintf("only %d written, %d failed", len(written), failed))
	}
	fmt.Printf("go-redis %s: %d written through a node's death, %d failed\n", name, len(written), failed)
}

func main() {
	address := "127.0.0.1:" + os.Getenv("ANNULUS_PORT")
	for _, protocol := range []int{2, 3} {
		plain := redis.NewClient(&redis.Options{Addr: address, Protocol: protocol})
		check(fmt.Sprint("plain", protocol), plain)
	}
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{address}, RouteRandomly: true})
	check("cluster", cluster)
	throughADeath("cluster", cluster)
	throughADeath("plain", redis.NewClient(&redis.Options{Addr: address, MaxRetries: 10}))
}
