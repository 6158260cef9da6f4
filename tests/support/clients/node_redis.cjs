// A plain program in node-redis: node_redis.cjs PACKAGE RESP ITEMS, in the ways of redis_py.py.
const [name, resp, items] = process.argv.slice(2);
const { createClient, createClientPool } = require(name);
const { INPUT_REDIS_URL: url, INPUT_QUEUE: queue, OUTPUT_QUEUE: output } = process.env;
const quarter = items / 4;
const resultOf = (item) => `result of ${item}`;

(async () => {
  const options = { url, RESP: Number(resp) };
  const client = await createClient(options).connect();
  for (let n = 0; n < quarter; n++) {
    const { element } = await client.brPop(queue, 5);
    await client.lPush(output, resultOf(element));
  }

  const batch = await client.rPopCount(queue, quarter);
  await Promise.all(batch.map((item) => client.rPush(output, resultOf(item))));

  for (let n = 0; n < quarter; n++) {
    const item = await client.lPop(queue);
    await client.multi().lPush(output, resultOf(item)).lLen(queue).exec();
  }

  const pool = await createClientPool(options, { minimum: 4, maximum: 4 }).connect();
  let left = quarter;
  await Promise.all(
    [1, 2, 3, 4].map(async () => {
      while (left-- > 0) {
        const { element } = await pool.blPop(queue, 5);
        await client.lPush(output, resultOf(element));
      }
    }),
  );
  await pool.close();
  if ((await client.brPop(queue, 0.01)) !== null) throw new Error('there is more');
  await client.close();
})();
