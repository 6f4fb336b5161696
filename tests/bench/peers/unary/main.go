// A client of ddq in Go: one unary Enqueue per task. It encodes requests by hand, so that nothing
// has to be generated; peers/driver.py describes the job.
package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	topic       = "bench"
	method      = "/ddq.v1.DelayQueueService/Enqueue"
	connections = 8
	timeout     = 60 * time.Second

	requestTopic = 1
	requestTask  = 2
	taskID       = 1
	taskPayload  = 2
	taskDueTime  = 5
	timeSeconds  = 1
	timeNanos    = 2
)

type job struct {
	Address      string `json:"address"`
	First        int    `json:"first"`
	Count        int    `json:"count"`
	Callers      int    `json:"callers"`
	PayloadBytes int    `json:"payload_bytes"`
	DueMs        int64  `json:"due_ms"`
	DelayMs      int64  `json:"delay_ms"`
}

// encoded is a codec for messages that are encoded already.
type encoded struct{}

func (encoded) Name() string                  { return "proto" }
func (encoded) Marshal(v any) ([]byte, error) { return *v.(*[]byte), nil }
func (encoded) Unmarshal(data []byte, v any) error {
	*v.(*[]byte) = append([]byte(nil), data...)
	return nil
}

func field(to []byte, number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(to, number, protowire.BytesType), value)
}

func integer(to []byte, number protowire.Number, value int64) []byte {
	return protowire.AppendVarint(
		protowire.AppendTag(to, number, protowire.VarintType), uint64(value))
}

func (j job) request(number int) []byte {
	dueMs := j.DueMs
	if dueMs == 0 {
		dueMs = time.Now().UnixMilli() + j.DelayMs
	}
	var id [16]byte
	if _, err := rand.Read(id[:]); err != nil {
		log.Fatal(err)
	}
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	head := fmt.Sprintf("%010d%013d.", number, dueMs)
	due := integer(nil, timeSeconds, dueMs/1000)
	due = integer(due, timeNanos, dueMs%1000*1_000_000)
	task := field(nil, taskID, []byte(uuid))
	task = field(task, taskPayload, []byte(head+strings.Repeat(".", j.PayloadBytes-len(head))))
	task = field(task, taskDueTime, due)
	return field(field(nil, requestTopic, []byte(topic)), requestTask, task)
}

func cpuSeconds() float64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		log.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds()
}

func main() {
	var j job
	if err := json.Unmarshal([]byte(os.Args[1]), &j); err != nil {
		log.Fatal(err)
	}
	channels := make([]*grpc.ClientConn, connections)
	for n := range channels {
		channel, err := grpc.NewClient(j.Address,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.ForceCodec(encoded{})))
		if err != nil {
			log.Fatal(err)
		}
		channels[n] = channel
	}
	var next, failed atomic.Int64
	var callers sync.WaitGroup
	began, before := time.Now(), cpuSeconds()
	for caller := range j.Callers {
		callers.Add(1)
		go func() {
			defer callers.Done()
			channel := channels[caller%connections]
			for n := next.Add(1) - 1; n < int64(j.Count); n = next.Add(1) - 1 {
				request := j.request(j.First + int(n))
				var reply []byte
				ctx, cancel := context.WithTimeout(context.Background(), timeout)
				if err := channel.Invoke(ctx, method, &request, &reply); err != nil {
					if failed.Add(1) == 1 {
						log.Print(err)
					}
				}
				cancel()
			}
		}()
	}
	callers.Wait()
	line, _ := json.Marshal(map[string]any{
		"seconds": time.Since(began).Seconds(), "cpu_s": cpuSeconds() - before,
		"failed": failed.Load(), "behind_ms": 0,
	})
	fmt.Println(string(line))
}
