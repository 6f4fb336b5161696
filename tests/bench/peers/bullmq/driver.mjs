// The driver of BullMQ; peers/driver.py describes the job.
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue, Worker } from 'bullmq';

const NAME = 'bench';
const DUPLICATES_MS = 1000;

const job = {
  first: 0, callers: 50, batch: 0, payload_bytes: 256, due_ms: 0, delay_ms: 3_600_000, rate: 500,
  min_delay_ms: 1000, max_delay_ms: 5000, concurrency: 50, limit_s: 60,
  ...JSON.parse(process.argv[2]),
};
const [host, port] = job.address.split(':');
const connection = { host, port: Number(port), maxRetriesPerRequest: null };

const nowMs = () => performance.timeOrigin + performance.now();
const say = (result) => console.log(JSON.stringify(result));
const cpuS = (since) => {
  const used = process.cpuUsage(since);
  return (used.user + used.system) / 1e6;
};

function task(number, dueMs) {
  const head = `${String(number).padStart(10, '0')}${String(dueMs).padStart(13, '0')}.`;
  return {
    name: NAME,
    data: head.padEnd(job.payload_bytes, '.'),
    opts: { delay: Math.max(0, dueMs - Math.floor(nowMs())), removeOnComplete: true, removeOnFail: true },
  };
}

const due = () => job.due_ms || Math.round(nowMs()) + job.delay_ms;

async function closed(queue) {
  const end = job.first + job.count;
  let next = job.first;
  async function caller() {
    while (next < end) {
      const start = next;
      next += job.batch || 1;
      if (job.batch) {
        const tasks = [];
        for (let n = start; n < Math.min(end, start + job.batch); n++) tasks.push(task(n, due()));
        await queue.addBulk(tasks);
      } else {
        const { name, data, opts } = task(start, due());
        await queue.add(name, data, opts);
      }
    }
  }
  await Promise.all(Array.from({ length: job.callers }, caller));
  return { failed: 0, behind_ms: 0 };
}

async function steady(queue) {
  const calls = [];
  let failed = 0;
  let behindMs = 0;
  const began = nowMs();
  for (let n = 0; n < job.count; n++) {
    const aheadMs = began + (n * 1000) / job.rate - nowMs();
    behindMs = Math.max(behindMs, -aheadMs);
    if (aheadMs > 0) await sleep(aheadMs);
    const delay = job.min_delay_ms + Math.floor(Math.random() * (job.max_delay_ms - job.min_delay_ms + 1));
    const { name, data, opts } = task(job.first + n, Math.round(nowMs()) + delay);
    calls.push(queue.add(name, data, opts).catch(() => { failed += 1; }));
  }
  await Promise.all(calls);
  return { failed, behind_ms: behindMs };
}

async function work() {
  const heads = [];
  const times = [];
  const worker = new Worker(NAME, async (each) => {
    times.push(nowMs());
    heads.push(each.data.slice(0, 24));
  }, { connection, concurrency: job.concurrency });
  worker.on('error', (error) => console.error(String(error)));
  await worker.waitUntilReady();
  say({ ready: true });
  const before = process.cpuUsage();
  const end = nowMs() + job.limit_s * 1000;
  while (heads.length < job.count && nowMs() < end) await sleep(50);
  const used = cpuS(before);
  await sleep(DUPLICATES_MS);
  const lines = heads.map((head, n) =>
    `${Number(head.slice(0, 10))} ${Number(head.slice(10, 23))} ${times[n].toFixed(3)}\n`);
  await worker.close();
  writeFileSync(job.out, lines.join(''));
  say({ delivered: heads.length, cpu_s: used });
}

if (job.do === 'work') {
  await work();
} else {
  const queue = new Queue(NAME, { connection });
  await queue.waitUntilReady();
  const began = nowMs();
  const before = process.cpuUsage();
  const result = await (job.do === 'steady' ? steady(queue) : closed(queue));
  say({ seconds: (nowMs() - began) / 1000, cpu_s: cpuS(before), ...result });
}
process.exit(0);
