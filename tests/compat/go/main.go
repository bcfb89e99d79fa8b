// go-redis against a ring: one connection and the cluster client, while the ring changes and nodes die.
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

// Writes number after number while the script ANNULUS_<what> runs. What was acknowledged has to be there after.
func through(name, what string, client redis.UniversalClient) {
	key := func(number int) string { return fmt.Sprint(name, ":", what, ":", number) }
	var written []int
	failed, pause := 0, time.Duration(0)
	script := exec.Command("sh", "-c", os.Getenv("ANNULUS_"+what))
	script.Stdout, script.Stderr = os.Stdout, os.Stderr
	done := make(chan error, 1)
	go func() { done <- script.Run() }()
	began, last, running := time.Now(), time.Now(), true
	for number := 1; running || time.Since(began) < 6*time.Second; number++ {
		select {
		case err := <-done:
			if err != nil {
				panic(fmt.Sprint("the script ", what, " failed: ", err))
			}
			running = false
		default:
		}
		if err := client.Set(ctx, key(number), number, 0).Err(); err == nil {
			written = append(written, number)
			pause, last = max(pause, time.Since(last)), time.Now()
		} else {
			failed++
			fmt.Printf("go-redis %s: %v\n", name, err)
			time.Sleep(50 * time.Millisecond)
		}
	}
	for _, number := range written {
		for attempt := 0; ; attempt++ {
			got, err := client.Get(ctx, key(number)).Int()
			if err == nil && got == number {
				break
			}
			if err == redis.Nil || err == nil || attempt > 100 {
				panic(fmt.Sprint(number, " is ", got, ", ", err))
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	fmt.Printf("go-redis %s, %s: %d written, %d failed, longest pause %.1fs\n", name, what, len(written), failed, pause.Seconds())
	if len(written) < 60 || (what == "RESIZE" && failed > 0) {
		panic("too few, or failures while nobody died")
	}
}

func main() {
	address := os.Getenv("ANNULUS_HOST") + ":" + os.Getenv("ANNULUS_PORT")
	for _, protocol := range []int{2, 3} {
		plain := redis.NewClient(&redis.Options{Addr: address, Protocol: protocol})
		check(fmt.Sprint("plain", protocol), plain)
	}
	cluster := redis.NewClusterClient(&redis.ClusterOptions{Addrs: []string{address}, RouteRandomly: true})
	check("cluster", cluster)
	through("cluster", "RESIZE", cluster)
	through("cluster", "TROUBLE", cluster)
	through("plain", "KILL", redis.NewClient(&redis.Options{Addr: address, MaxRetries: 10}))
}
