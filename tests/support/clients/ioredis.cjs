// A plain program in ioredis: ioredis.cjs PACKAGE RESP ITEMS, in the ways of redis_py.py.
const [name, resp, items] = process.argv.slice(2);
const Redis = require(name);
const { INPUT_REDIS_URL: url, INPUT_QUEUE: queue, OUTPUT_QUEUE: output } = process.env;
const quarter = items / 4;
const resultOf = (item) => `result of ${item}`;

(async () => {
  const client = new Redis(url, { protocol: Number(resp) });
  for (let n = 0; n < quarter; n++) {
    const [, item] = await client.brpop(queue, 5);
    await client.lpush(output, resultOf(item));
  }

  const batch = await client.rpop(queue, quarter);
  const pipeline = client.pipeline();
  for (const item of batch) pipeline.rpush(output, resultOf(item));
  await pipeline.exec();

  for (let n = 0; n < quarter; n++) {
    const item = await client.lpop(queue);
    await client.multi().lpush(output, resultOf(item)).llen(queue).exec();
  }

  let left = quarter;
  await Promise.all(
    [1, 2, 3, 4].map(async () => {
      const blocking = client.duplicate();
      while (left-- > 0) {
        const [, item] = await blocking.blpop(queue, 5);
        await client.lpush(output, resultOf(item));
      }
      await blocking.quit();
    }),
  );
  if ((await client.brpop(queue, 0.01)) !== null) throw new Error('there is more');
  await client.quit();
})();
