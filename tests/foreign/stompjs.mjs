// A full job with @stomp/stompjs. Arguments: port, version, and "first" or "again" (after a restart). Over TCP, or over
// WebSocket as in a browser where TEST_SCHEME says ws or wss. TEST_LOGIN and TEST_PASSCODE say who it is.

import assert from 'node:assert/strict';
import { Client, Versions } from '@stomp/stompjs';
import { TCPWrapper } from '@stomp/tcp-wrapper';
import WebSocket from 'ws';

const [port, version, phase] = process.argv.slice(2);
const queue = (name) => `/queue/stompjs-${version}-${name}`;

const soon = (promise, what) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what} did not come`)), 20_000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

// The library makes its own WebSocket, with the sub-protocol of its version, which must be confirmed.
Object.assign(globalThis, { WebSocket });
const scheme = process.env.TEST_SCHEME;
const transport = scheme
  ? { brokerURL: `${scheme}://127.0.0.1:${port}/ws` }
  : { webSocketFactory: () => new TCPWrapper('127.0.0.1', port) };

const { TEST_LOGIN: login, TEST_PASSCODE: passcode } = process.env;
const account = { ...(login && { login }), ...(passcode && { passcode }) };

let receipts = 0;

const connect = (options = {}) => soon(new Promise((resolve, reject) => {
  const client = new Client({
    ...transport,
    connectHeaders: account,
    stompVersions: new Versions([version]),
    reconnectDelay: 0,
    heartbeatIncoming: 0,
    heartbeatOutgoing: 0,
    onConnect: () => {
      assert.equal(client.connectedVersion, version);
      resolve(client);
    },
    onStompError: (frame) => {
      console.error(frame.headers, frame.body);
      reject(new Error('ERROR came'));
    },
    ...options,
  });
  client.activate();
}), 'CONNECTED');

const receipt = (client, what, start) => soon(new Promise((resolve) => {
  receipts += 1;
  const id = `r${receipts}`;
  client.watchForReceipt(id, resolve);
  start({ receipt: id });
}), `RECEIPT of ${what}`);

const send = (client, destination, body, headers = {}) => receipt(client, 'SEND', (asked) => {
  const content = typeof body === 'string' ? { body } : { binaryBody: body };
  client.publish({ destination, headers: { ...headers, ...asked }, ...content });
});

const subscribe = async (client, destination, ack) => {
  const came = [];
  const waiting = [];
  const take = () => soon(
    came.length > 0 ? Promise.resolve(came.shift()) : new Promise((resolve) => waiting.push(resolve)),
    `MESSAGE from ${destination}`,
  );
  let subscription;
  await receipt(client, 'SUBSCRIBE', (asked) => {
    subscription = client.subscribe(destination, (message) => {
      if (waiting.length > 0) waiting.shift()(message); else came.push(message);
    }, { ack, ...asked });
  });
  const expect = async (...bodies) => {
    const messages = [];
    for (const body of bodies) {
      const message = await take();
      assert.deepEqual(Buffer.from(message.binaryBody), Buffer.from(body));
      messages.push(message);
    }
    return messages;
  };
  const unsubscribe = () => receipt(client, 'UNSUBSCRIBE', (asked) => subscription.unsubscribe(asked));
  return { expect, came, unsubscribe };
};

const settle = (client, kind, message, headers = {}) =>
  receipt(client, kind, (asked) => message[kind]({ ...headers, ...asked }));

const disconnect = (client) => soon(client.deactivate(), 'the end after DISCONNECT');

const first = async () => {
  const client = await connect();

  const binary = Uint8Array.from({ length: 5120 }, (_, n) => n % 256);
  // This client escapes in 1.2 only, and unescapes a backslash before a c wrongly.
  const tricky = version !== '1.2' ? 'plain' : 'a:b\\d\ne';
  await send(client, queue('plain'), 'hello', { number: '1', greeting: 'grüße', tricky });
  await send(client, queue('plain'), binary);
  const plain = await subscribe(client, queue('plain'), 'auto');
  const [hello] = await plain.expect('hello', binary);
  assert.equal(hello.headers.number, '1');
  assert.equal(hello.headers.greeting, 'grüße');
  assert.equal(hello.headers.tricky, tricky);
  assert.equal(hello.headers.destination, queue('plain'));
  await plain.unsubscribe();

  for (const n of [0, 1, 2, 3, 4]) await send(client, queue('client'), `m${n}`);
  let work = await subscribe(client, queue('client'), 'client');
  const five = await work.expect('m0', 'm1', 'm2', 'm3', 'm4');
  await settle(client, 'ack', five[2]);
  await work.unsubscribe();
  work = await subscribe(client, queue('client'), 'client');
  const two = await work.expect('m3', 'm4');
  assert.equal(two[0].headers.redelivered, 'true');
  await settle(client, 'ack', two[1]);
  await work.unsubscribe();
  assert.equal(work.came.length, 0);

  if (version !== '1.0') {
    for (const n of [0, 1, 2]) await send(client, queue('individual'), `m${n}`);
    const single = await subscribe(client, queue('individual'), 'client-individual');
    const three = await single.expect('m0', 'm1', 'm2');
    await settle(client, 'ack', three[1]);
    await settle(client, 'nack', three[0]);
    const [back] = await single.expect('m0');
    assert.equal(back.headers.redelivered, 'true');
    assert.equal(back.headers['message-id'], three[0].headers['message-id']);
    await settle(client, 'ack', back);
    await settle(client, 'ack', three[2]);
    await single.unsubscribe();
  }

  await send(client, queue('source'), 'in');
  const source = await subscribe(client, queue('source'), 'client');
  const [input] = await source.expect('in');
  for (const kind of ['abort', 'commit']) {
    const transaction = client.begin(`tx-${kind}`);
    await send(client, queue('target'), `out of ${kind}`, { transaction: transaction.id });
    await settle(client, 'ack', input, { transaction: transaction.id });
    await send(client, queue('source'), 'in again', { transaction: transaction.id });
    // This client cannot ask for the receipt of a COMMIT; that of a later frame proves it.
    transaction[kind]();
    await send(client, '/topic/nobody', 'fence');
  }
  const [againInput] = await source.expect('in again');
  await settle(client, 'ack', againInput);
  const target = await subscribe(client, queue('target'), 'client');
  const [output] = await target.expect('out of commit');
  await settle(client, 'ack', output);
  await source.unsubscribe();
  await target.unsubscribe();
  assert.equal(target.came.length, 0);

  const other = await connect();
  const listeners = [];
  for (const each of [client, other]) listeners.push(await subscribe(each, `/topic/stompjs-${version}`, 'auto'));
  await send(other, `/topic/stompjs-${version}`, 'to all');
  for (const listener of listeners) await listener.expect('to all');
  await disconnect(other);

  for (const n of [0, 1, 2, 3]) await send(client, queue('kept'), `m${n}`);
  const kept = await subscribe(client, queue('kept'), 'client');
  const four = await kept.expect('m0', 'm1', 'm2', 'm3');
  await settle(client, 'ack', four[0]);
  await disconnect(client);

  let told;
  const failed = new Promise((resolve) => { told = resolve; });
  const broken = await connect({ onStompError: told });
  broken.publish({ destination: '/nonsense/x', headers: { receipt: 'bad' }, body: '?' });
  const error = await soon(failed, 'ERROR');
  assert.equal(error.headers['receipt-id'], 'bad');
  await disconnect(broken);

  if (version !== '1.0') {
    let beats = 0;
    let lost = false;
    const beating = await connect({
      heartbeatIncoming: 300,
      heartbeatOutgoing: 300,
      debug: (text) => { beats += text === '<<< PONG' ? 1 : 0; },
      onWebSocketClose: () => { lost = true; },
    });
    await new Promise((resolve) => { setTimeout(resolve, 2_000); });
    assert.ok(beats >= 4, `${beats} heart-beats in two seconds`);
    assert.equal(lost, false);
    await send(beating, queue('beats'), 'still here');
    await disconnect(beating);
  }
};

const again = async () => {
  const client = await connect();
  const kept = await subscribe(client, queue('kept'), 'client');
  const three = await kept.expect('m1', 'm2', 'm3');
  assert.equal(three[0].headers.redelivered, 'true');
  await settle(client, 'ack', three[2]);
  await kept.unsubscribe();
  assert.equal(kept.came.length, 0);
  await disconnect(client);
};

await { first, again }[phase]();
console.log('done');
process.exit(0);
