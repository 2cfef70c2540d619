// A full job with stompit. Arguments: port, version, and "first" or "again" (after a restart of the broker).

import assert from 'node:assert/strict';
import { once } from 'node:events';
import stompit from 'stompit';

const [port, version, phase] = process.argv.slice(2);
const queue = (name) => `/queue/stompit-${version}-${name}`;

// A promise that fails when nothing comes.
const soon = (promise, what) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come`)), 20_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

const connect = async (headers = {}) => {
  const client = await soon(new Promise((resolve, reject) => {
    const options = { host: '127.0.0.1', port, connectHeaders: { host: 'x', 'accept-version': version, ...headers } };
    stompit.connect(options, (error, client) => (error ? reject(error) : resolve(client)));
  }), 'CONNECTED');
  assert.equal(client.headers.version ?? '1.0', version);
  return client;
};

const receipt = (what, start) =>
  soon(new Promise((resolve, reject) => start({ onReceipt: resolve, onError: reject })), `RECEIPT of ${what}`);

const send = (client, destination, body, headers = {}) =>
  receipt('SEND', (options) => {
    const frame = client.send({ destination, ...headers }, options);
    frame.end(body);
  });

const sendIn = (transaction, destination, body) =>
  receipt('SEND', (options) => transaction.send({ destination }, options).end(body));

// A subscription whose messages can be awaited one by one, with their bodies read.
const subscribe = (client, destination, ack) => {
  const came = [];
  const waiting = [];
  const take = () => soon(
    came.length > 0 ? Promise.resolve(came.shift()) : new Promise((resolve) => waiting.push(resolve)),
    `MESSAGE from ${destination}`,
  );
  const subscription = client.subscribe({ destination, ack }, (error, message) => {
    if (error) return; // The connection's own error says it.
    const parts = [];
    message.on('data', (part) => parts.push(part));
    message.on('end', () => {
      message.body = Buffer.concat(parts);
      if (waiting.length > 0) waiting.shift()(message); else came.push(message);
    });
  });
  const expect = async (...bodies) => {
    const messages = [];
    for (const body of bodies) {
      const message = await take();
      assert.equal(message.body.toString('latin1'), Buffer.from(body).toString('latin1'));
      messages.push(message);
    }
    return messages;
  };
  return { expect, came, subscription };
};

const settle = (client, kind, message, headers = {}) =>
  receipt(kind, (options) => client[kind](message, headers, options));

// UNSUBSCRIBE, proven done by the receipt of a later frame.
const unsubscribe = async (client, { subscription }) => {
  subscription.unsubscribe();
  await send(client, '/topic/nobody', 'fence');
};

const end = (transaction, kind) => receipt(kind, (options) => transaction[kind](options));

const disconnect = (client) => soon(new Promise((resolve, reject) => {
  client.disconnect((error) => (error ? reject(error) : resolve()));
}), 'the end after DISCONNECT');

const first = async () => {
  const client = await connect();

  const binary = Buffer.from(Array.from({ length: 5120 }, (_, n) => n % 256));
  await send(client, queue('plain'), 'hello', { number: 1, greeting: 'grüße' });
  await send(client, queue('plain'), binary, { 'content-length': binary.length });
  const plain = subscribe(client, queue('plain'), 'auto');
  const [hello] = await plain.expect('hello', binary);
  assert.equal(hello.headers.number, '1');
  assert.equal(hello.headers.greeting, 'grüße');
  assert.equal(hello.headers.destination, queue('plain'));
  await unsubscribe(client, plain);

  for (const n of [0, 1, 2, 3, 4]) await send(client, queue('client'), `m${n}`);
  let work = subscribe(client, queue('client'), 'client');
  const five = await work.expect('m0', 'm1', 'm2', 'm3', 'm4');
  await settle(client, 'ack', five[2]);
  await unsubscribe(client, work);
  work = subscribe(client, queue('client'), 'client');
  const two = await work.expect('m3', 'm4');
  assert.equal(two[0].headers.redelivered, 'true');
  await settle(client, 'ack', two[1]);
  await unsubscribe(client, work);
  assert.equal(work.came.length, 0);

  if (version !== '1.0') {
    for (const n of [0, 1, 2]) await send(client, queue('individual'), `m${n}`);
    const single = subscribe(client, queue('individual'), 'client-individual');
    const three = await single.expect('m0', 'm1', 'm2');
    await settle(client, 'ack', three[1]);
    await settle(client, 'nack', three[0]);
    const [back] = await single.expect('m0');
    assert.equal(back.headers.redelivered, 'true');
    assert.equal(back.headers['message-id'], three[0].headers['message-id']);
    await settle(client, 'ack', back);
    await settle(client, 'ack', three[2]);
    await unsubscribe(client, single);
  }

  await send(client, queue('source'), 'in');
  const source = subscribe(client, queue('source'), 'client');
  const [input] = await source.expect('in');
  for (const kind of ['abort', 'commit']) {
    const transaction = client.begin({ transaction: `tx-${kind}` });
    await sendIn(transaction, queue('target'), `out of ${kind}`);
    await settle(client, 'ack', input, { transaction: transaction.id });
    await sendIn(transaction, queue('source'), 'in again');
    await end(transaction, kind);
  }
  const [againInput] = await source.expect('in again');
  await settle(client, 'ack', againInput);
  const target = subscribe(client, queue('target'), 'client');
  const [output] = await target.expect('out of commit');
  await settle(client, 'ack', output);
  await unsubscribe(client, source);
  await unsubscribe(client, target);
  assert.equal(target.came.length, 0);

  const other = await connect();
  const listeners = [client, other].map((each) => subscribe(each, `/topic/stompit-${version}`, 'auto'));
  await send(client, '/topic/nobody', 'fence');
  await send(other, '/topic/nobody', 'fence');
  await send(other, `/topic/stompit-${version}`, 'to all');
  for (const listener of listeners) await listener.expect('to all');
  await disconnect(other);

  for (const n of [0, 1, 2, 3]) await send(client, queue('kept'), `m${n}`);
  const kept = subscribe(client, queue('kept'), 'client');
  const four = await kept.expect('m0', 'm1', 'm2', 'm3');
  await settle(client, 'ack', four[0]);
  await disconnect(client);

  const broken = await connect();
  // stompit 1.0.0 gives an ERROR that has a text to the stream of that text, where nobody can listen for it.
  const failed = soon(once(process, 'uncaughtException'), 'ERROR');
  const ended = soon(once(broken, 'error'), 'the end after ERROR');
  broken.send({ destination: '/nonsense/x', receipt: 'bad' }).end('?');
  const [error] = await failed;
  assert.ok(error.isApplicationError(), `an ERROR of the broker: ${error}`);
  await ended;

  if (version !== '1.0') {
    const beating = await connect({ 'heart-beat': '300,300' });
    let lost = null;
    beating.on('error', (error) => { lost = error; });
    // stompit counts no beats, but ends the connection when they fail to come.
    await new Promise((resolve) => { setTimeout(resolve, 2_000); });
    assert.equal(lost, null);
    await send(beating, queue('beats'), 'still here');
    await disconnect(beating);
  }
};

const again = async () => {
  const client = await connect();
  const kept = subscribe(client, queue('kept'), 'client');
  const three = await kept.expect('m1', 'm2', 'm3');
  assert.equal(three[0].headers.redelivered, 'true');
  await settle(client, 'ack', three[2]);
  await unsubscribe(client, kept);
  assert.equal(kept.came.length, 0);
  await disconnect(client);
};

await { first, again }[phase]();
console.log('done');
process.exit(0);
