// The driver of asynq; peers/driver.py describes the job.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hibiken/asynq"
)

const (
	kind        = "bench"
	headBytes   = 24
	forSecondMs = 1000
)

type job struct {
	Do           string  `json:"do"`
	Address      string  `json:"address"`
	First        int     `json:"first"`
	Count        int     `json:"count"`
	Callers      int     `json:"callers"`
	PayloadBytes int     `json:"payload_bytes"`
	DueMs        int64   `json:"due_ms"`
	DelayMs      int64   `json:"delay_ms"`
	Rate         float64 `json:"rate"`
	MinDelayMs   int64   `json:"min_delay_ms"`
	MaxDelayMs   int64   `json:"max_delay_ms"`
	Seed         int64   `json:"seed"`
	Concurrency  int     `json:"concurrency"`
	LimitS       float64 `json:"limit_s"`
	Out          string  `json:"out"`
}

type result struct {
	Seconds   float64 `json:"seconds"`
	CPUS      float64 `json:"cpu_s"`
	Failed    int64   `json:"failed"`
	BehindMs  float64 `json:"behind_ms"`
	Delivered int     `json:"delivered"`
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}

func (j job) enqueue(client *asynq.Client, number int, dueMs int64) error {
	head := fmt.Sprintf("%010d%013d.", number, dueMs)
	payload := head + strings.Repeat(".", j.PayloadBytes-len(head))
	_, err := client.Enqueue(
		asynq.NewTask(kind, []byte(payload)), asynq.ProcessAt(time.UnixMilli(dueMs)))
	return err
}

func (j job) due() int64 {
	if j.DueMs != 0 {
		return j.DueMs
	}
	return time.Now().UnixMilli() + j.DelayMs
}

// closed runs callers that each make the next call when the last one is answered.
func (j job) closed(client *asynq.Client) int64 {
	var next, failed atomic.Int64
	var callers sync.WaitGroup
	for range j.Callers {
		callers.Add(1)
		go func() {
			defer callers.Done()
			for n := next.Add(1) - 1; n < int64(j.Count); n = next.Add(1) - 1 {
				if err := j.enqueue(client, j.First+int(n), j.due()); err != nil {
					failed.Add(1)
				}
			}
		}()
	}
	callers.Wait()
	return failed.Load()
}

// steady makes calls at the times of a clock, whether or not earlier ones are answered.
func (j job) steady(client *asynq.Client) (int64, time.Duration) {
	rng := rand.New(rand.NewSource(j.Seed))
	var failed atomic.Int64
	var behind time.Duration
	var calls sync.WaitGroup
	began := time.Now()
	for n := range j.Count {
		ahead := time.Until(began.Add(time.Duration(float64(n) / j.Rate * float64(time.Second))))
		behind = max(behind, -ahead)
		time.Sleep(ahead)
		due := time.Now().UnixMilli() + j.MinDelayMs + rng.Int63n(j.MaxDelayMs-j.MinDelayMs+1)
		calls.Add(1)
		go func() {
			defer calls.Done()
			if err := j.enqueue(client, j.First+n, due); err != nil {
				failed.Add(1)
			}
		}()
	}
	calls.Wait()
	return failed.Load(), behind
}

type delivery struct {
	head string
	at   time.Time
}

func (j job) work(store asynq.RedisClientOpt) result {
	var mutex sync.Mutex
	var deliveries []delivery
	server := asynq.NewServer(store, asynq.Config{Concurrency: j.Concurrency, LogLevel: asynq.FatalLevel})
	handler := func(_ context.Context, task *asynq.Task) error {
		at := time.Now()
		mutex.Lock()
		deliveries = append(deliveries, delivery{string(task.Payload()[:headBytes]), at})
		mutex.Unlock()
		return nil
	}
	if err := server.Start(asynq.HandlerFunc(handler)); err != nil {
		log.Fatal(err)
	}
	fmt.Println(`{"ready": true}`)
	before := cpuSeconds()
	end := time.Now().Add(time.Duration(j.LimitS * float64(time.Second)))
	count := func() int {
		mutex.Lock()
		defer mutex.Unlock()
		return len(deliveries)
	}
	for count() < j.Count && time.Now().Before(end) {
		time.Sleep(50 * time.Millisecond)
	}
	used := cpuSeconds() - before
	time.Sleep(forSecondMs * time.Millisecond) // duplicates
	server.Shutdown()
	file, err := os.Create(j.Out)
	if err != nil {
		log.Fatal(err)
	}
	writer := bufio.NewWriter(file)
	for _, each := range deliveries {
		var number int
		var due int64
		fmt.Sscanf(each.head, "%10d%13d", &number, &due)
		fmt.Fprintf(writer, "%d %d %.3f\n", number, due, float64(each.at.UnixNano())/1e6)
	}
	if err := writer.Flush(); err != nil {
		log.Fatal(err)
	}
	return result{Delivered: len(deliveries), CPUS: used}
}

func main() {
	var j job
	if err := json.Unmarshal([]byte(os.Args[1]), &j); err != nil {
		log.Fatal(err)
	}
	store := asynq.RedisClientOpt{Addr: j.Address, PoolSize: 100}
	var r result
	if j.Do == "work" {
		r = j.work(store)
	} else {
		client := asynq.NewClient(store)
		began, before := time.Now(), cpuSeconds()
		if j.Do == "steady" {
			var behind time.Duration
			r.Failed, behind = j.steady(client)
			r.BehindMs = float64(behind) / float64(time.Millisecond)
		} else {
			r.Failed = j.closed(client)
		}
		r.Seconds, r.CPUS = time.Since(began).Seconds(), cpuSeconds()-before
	}
	line, _ := json.Marshal(r)
	fmt.Println(string(line))
}
