/*
 * The test page: signs in, connects a few official Socket.IO clients to one hub, sends an event and judges who received it.
 *
 * A plain script, so that it also runs from a file or any web server. It knows the hub's public doors only: /readyz,
 * /healthz, /auth/*, the client's bundle, and the namespace /events (`instance` in, `echo` and `test-event` out and in).
 * What comes from outside is shown through textContent alone.
 *
 * Reading order: settings, small tools, the hub's health, the token, one client, all clients, one trial (the verdict), start.
 */
'use strict';

(() => {
  // ---- settings -------------------------------------------------------------------------------------------------------

  const DEFAULT_SERVER = 'http://localhost:3000';
  const NAMESPACE = '/events';
  const MAX_CLIENTS = 20;
  /** Browsers open six HTTP/1.1 connections to one server; every polling client parks a request on one, and sending needs another. */
  const MAX_POLLING_CLIENTS = 5;
  const VERDICT_AFTER_MS = 5000;
  const ECHO_EVERY_MS = 4000;
  const HEALTH_EVERY_MS = 10000;
  /** While clients fail, they ask for the hub's health with every attempt; it is not asked more often than this. */
  const HEALTH_AT_MOST_EVERY_MS = 2000;
  const ANSWER_WITHIN_MS = 5000;
  const SIGN_IN_WITHIN_MS = 20000;
  const SHOWN_EVENTS = 5;
  const SHOWN_CHARACTERS = 240;

  const TRANSPORTS = {
    upgrade: {
      transports: ['polling', 'websocket'],
      hint: 'The client’s default: begins with HTTP requests, moves to a WebSocket when that works. No load balancer has to be sticky for it.',
    },
    websocket: {
      transports: ['websocket'],
      hint: 'One connection for each client, from the start.',
    },
    polling: {
      transports: ['polling'],
      hint: `HTTP requests only. A browser can hold ${MAX_POLLING_CLIENTS} such clients for one server.`,
    },
  };

  /** Why the hub refused a client, in words, with what to do. */
  const REFUSALS = {
    token_missing: 'The hub asks for a token, and there is none. Register, log in or paste a token in step 2, then connect again.',
    token_invalid: 'The hub does not accept this token: it is damaged, or another hub issued it. Log in again in step 2, then connect again.',
    token_expired: 'The token has expired. Log in again in step 2, then connect again.',
    auth_unavailable: 'The hub cannot reach its accounts at the moment; its Redis may be down. Connect again in a little while.',
  };

  // ---- small tools ----------------------------------------------------------------------------------------------------

  const $ = (id) => document.getElementById(id);

  /** Writes only what differs, so that live regions do not speak without news. */
  function say(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function answer(element, text, tone) {
    element.dataset.tone = tone;
    say(element, text);
  }

  function fieldError(input, text) {
    say($(`${input.id}-error`), text);
    if (text) input.setAttribute('aria-invalid', 'true');
    else input.removeAttribute('aria-invalid');
  }

  const sentence = (text) => {
    const whole = String(text).trim();
    return whole && whole[0].toUpperCase() + whole.slice(1) + (/[.!?]$/.test(whole) ? '' : '.');
  };

  /** 1 → "client 1"; 1, 2, 3 → "clients 1, 2 and 3". */
  function naming(clients) {
    const numbers = clients.map((client) => client.number);
    if (numbers.length === 1) return `client ${numbers[0]}`;
    return `clients ${numbers.slice(0, -1).join(', ')} and ${numbers[numbers.length - 1]}`;
  }

  const milliseconds = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;

  /** Not crypto.randomUUID: a phone reaches a development machine by plain http, where that does not exist. */
  function randomBytes(length) {
    return crypto.getRandomValues(new Uint8Array(length));
  }

  const randomId = () => Array.from(randomBytes(5), (byte) => byte.toString(16).padStart(2, '0')).join('');

  function asBytes(value) {
    if (value instanceof ArrayBuffer) return new Uint8Array(value);
    if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength);
    return null;
  }

  /** Compares what was sent with what came back; binary arrives as an ArrayBuffer, whatever it left as. */
  function isSame(a, b) {
    if (Object.is(a, b)) return true;
    if (typeof a !== 'object' || typeof b !== 'object' || !a || !b) return false;
    const left = asBytes(a);
    const right = asBytes(b);
    if (left || right) {
      return !!left && !!right && left.length === right.length && left.every((byte, i) => byte === right[i]);
    }
    if (Array.isArray(a) !== Array.isArray(b)) return false;
    const keys = Object.keys(a);
    return keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && isSame(a[key], b[key]));
  }

  /** One line of JSON, binary as its length. */
  function show(value) {
    const lines = JSON.stringify(value, (_key, part) => {
      const bytes = asBytes(part);
      return bytes ? `‹${bytes.length} bytes›` : part;
    }, 1);
    if (lines === undefined) return String(value);
    // A line break in JSON's layout is never one inside of a string.
    const text = lines.replace(/([[{])\n\s*/g, '$1').replace(/\n\s*([\]}])/g, '$1').replace(/\n\s*/g, ' ');
    return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}…` : text;
  }

  function clock(date) {
    return `${date.toLocaleTimeString('en-GB')}.${String(date.getMilliseconds()).padStart(3, '0')}`;
  }

  function span(seconds) {
    if (seconds < 100) return `${seconds} s`;
    if (seconds < 100 * 60) return `${Math.round(seconds / 60)} min`;
    if (seconds < 72 * 3600) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }

  // ---- the hub's health -----------------------------------------------------------------------------------------------

  /** The chosen hub's origin, or '' while none is chosen. */
  let server = '';
  /** This page's own origin, when a hub serves it. */
  let ownHub = null;
  /** What the last look at the hub found: `{kind, tone, text, parser?}`; kind is idle, ready, unready, none, origin, other or mixed. */
  let health = { kind: 'idle', tone: 'idle', text: 'Not asked yet.' };
  /** The form of packets that the chosen hub speaks, a key of `BUNDLES`: what it last said, or what hubs speak unless told otherwise. */
  let parser = 'json';
  let looking = null;
  let lookedAt = -Infinity;
  let lookAgain = null;
  /** Whether the address in the form is not yet the chosen one. */
  let isServerEdited = false;

  const pageOrigin = /^https?:$/.test(location.protocol) ? location.origin : null;

  /** Returns the origin that `text` means, or throws a sentence. */
  function serverFrom(text) {
    const typed = text.trim();
    if (!typed) throw new Error(`Enter the hub’s address, for example ${DEFAULT_SERVER}.`);
    const whole = /^[a-z][a-z0-9+.-]*:\/\//i.test(typed) ? typed : `http://${typed}`;
    let url;
    try {
      url = new URL(whole.replace(/^ws(s?):/i, 'http$1:'));
    } catch {
      throw new Error(`This is not an address. Write it like ${DEFAULT_SERVER}.`);
    }
    if (!/^https?:$/.test(url.protocol)) throw new Error(`The address must begin with http:// or https://, like ${DEFAULT_SERVER}.`);
    return url.origin;
  }

  async function readyz(origin) {
    const response = await fetch(`${origin}/readyz`, {
      cache: 'no-store',
      signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
    });
    const body = await response.json().catch(() => null);
    return { status: response.status, body: body && body.name === 'sockhop' ? body : null };
  }

  /**
   * Asks the hub how it is, and when it does not answer, why.
   *
   * To a page, a refused origin and a missing server are the same network error. A request in `no-cors` mode tells
   * them apart: its answer is unreadable, but it only resolves when some server answered.
   */
  async function look(origin) {
    try {
      const { status, body } = await readyz(origin);
      if (body) return { ...judgeReadiness(body), parser: body.parser };
      if ([502, 503, 504].includes(status)) {
        return { kind: 'none', tone: 'bad', text: `A proxy answers at ${origin} (HTTP ${status}), but no hub behind it does. Are the instances running?` };
      }
      return {
        kind: 'other',
        tone: 'bad',
        text: `Something answers at ${origin} (HTTP ${status}), but it is not a Sockhop hub. Check the address and the port.`,
      };
    } catch {
      if (location.protocol === 'https:' && origin.startsWith('http:')) {
        return {
          kind: 'mixed',
          tone: 'bad',
          text: `This page came over https, and browsers do not let it use ${origin}, which is plain http. Give the hub’s https address.`,
        };
      }
    }
    const nobody = { kind: 'none', tone: 'bad', text: `No server answers at ${origin}. Is it running, and is this its address?` };
    if (origin === pageOrigin) return nobody;
    try {
      await fetch(`${origin}/healthz`, { mode: 'no-cors', cache: 'no-store', signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
    } catch {
      return nobody;
    }
    return {
      kind: 'origin',
      tone: 'bad',
      text: pageOrigin
        ? `The server at ${origin} is up but does not allow this page’s origin, ${pageOrigin}. Start the hub with FRONTEND_URL=${pageOrigin}.`
        : `The server at ${origin} is up but cannot allow a page that was opened as a file: it has no origin. `
          + `Open the hub’s own page at ${origin}/, or serve this one from a web server and name its origin in FRONTEND_URL.`,
    };
  }

  function judgeReadiness(body) {
    const cluster = body.mode === 'cluster';
    const who = `Instance ${body.instance}, ${cluster ? 'cluster' : 'single-instance'} mode`;
    if (body.ready === false) {
      const why = body.reason ? ` ${sentence(body.reason)}` : '';
      return { kind: 'unready', tone: 'warn', text: `${who}. It takes no clients at the moment.${why}` };
    }
    if (cluster && body.redis && body.redis.state !== 'up') {
      return {
        kind: 'ready',
        tone: 'warn',
        text: `${who}. It does not reach its Redis: until it does, events go to the clients of this instance only.`,
      };
    }
    return { kind: 'ready', tone: 'good', text: `${who}. Ready${body.version ? `, version ${body.version}` : ''}.` };
  }

  /** Looks at the chosen hub, once at a time, and shows what it found. */
  function checkServer({ quietly = false } = {}) {
    if (!server) return Promise.resolve(health);
    if (looking && looking.origin === server) return looking.done;
    const origin = server;
    const since = performance.now() - lookedAt;
    if (quietly && since < HEALTH_AT_MOST_EVERY_MS) {
      if (!lookAgain) {
        lookAgain = setTimeout(() => {
          lookAgain = null;
          checkServer({ quietly: true });
        }, HEALTH_AT_MOST_EVERY_MS - since);
      }
      return Promise.resolve(health);
    }
    if (!quietly) answer($('server-status'), `Asking ${origin} …`, 'idle');
    const done = look(origin).then((found) => {
      if (looking && looking.origin === origin) looking = null;
      if (origin !== server) return health;
      lookedAt = performance.now();
      // Behind a balancer every look meets another instance: that alone is no news.
      const isNews = !quietly || found.kind !== health.kind || found.tone !== health.tone;
      health = found;
      if (Object.hasOwn(BUNDLES, found.parser)) ({ parser } = found);
      if (isNews && !isServerEdited) answer($('server-status'), found.text, found.tone);
      renderConnection();
      return found;
    });
    looking = { origin, done };
    return done;
  }

  /** Takes the address from the form. Returns whether it is one. */
  function takeServer() {
    const input = $('server');
    let chosen;
    try {
      chosen = serverFrom(input.value);
    } catch (fault) {
      fieldError(input, fault.message);
      return false;
    }
    fieldError(input, '');
    input.value = chosen;
    isServerEdited = false;
    if (chosen !== server) {
      server = chosen;
      health = { kind: 'idle', tone: 'idle', text: 'Not asked yet.' };
      parser = 'json';
      lookedAt = -Infinity;
      say($('account-target'), server);
      say($('sign-in-problem'), '');
      tokenRefused = false;
      renderToken();
    }
    return true;
  }

  /**
   * Follows the typing, but asks nobody: what a half-typed address answers is of no interest. Nor does it act when
   * the field is left: a line that comes or goes just then moves the button away under the pointer that presses it.
   */
  function editServer() {
    isServerEdited = true;
    fieldError($('server'), '');
    answer($('server-status'), 'Not asked yet.', 'idle');
    try {
      say($('account-target'), serverFrom($('server').value));
    } catch {
      say($('account-target'), 'the address above');
    }
  }

  // ---- the token ------------------------------------------------------------------------------------------------------

  /** Tokens by hub, so that no hub is ever shown another's. Kept for this tab only. */
  const tokens = new Map();
  let tokenRefused = false;

  const storageKey = (origin) => `sockhop.token ${origin}`;

  function token() {
    if (!tokens.has(server)) {
      let kept = null;
      try {
        kept = JSON.parse(sessionStorage.getItem(storageKey(server)));
      } catch { /* no storage here: the token lives as long as the page */ }
      tokens.set(server, kept);
    }
    return tokens.get(server);
  }

  function keepToken(entry) {
    tokens.set(server, entry);
    tokenRefused = false;
    try {
      if (entry) sessionStorage.setItem(storageKey(server), JSON.stringify(entry));
      else sessionStorage.removeItem(storageKey(server));
    } catch { /* as above */ }
    say($('token-note'), '');
    renderToken();
  }

  /** Reads the claims without judging them: only the hub knows whether a token is good. */
  function claims(jwt) {
    try {
      const bytes = Uint8Array.from(atob(jwt.split('.')[1].replace(/-/g, '+').replace(/_/g, '/')), (c) => c.charCodeAt(0));
      const body = JSON.parse(new TextDecoder().decode(bytes));
      return body && typeof body === 'object' ? body : {};
    } catch {
      return {};
    }
  }

  function hasExpired(entry) {
    return !!entry && typeof entry.expiresAt === 'number' && entry.expiresAt <= Date.now();
  }

  function renderToken() {
    const entry = token();
    const expired = hasExpired(entry);
    $('signed-in').hidden = !entry;
    $('signed-in').dataset.tone = expired || tokenRefused ? 'bad' : 'good';
    $('sign-in-forms').hidden = !!entry && !expired && !tokenRefused;
    if (!entry) return;
    say($('signed-in-as'), entry.username ? `Signed in as ${entry.username}.` : 'Using a pasted token.');
    const left = Math.ceil((entry.expiresAt - Date.now()) / 1000);
    if (expired) say($('token-life'), 'The token has expired: log in again.');
    else if (tokenRefused) say($('token-life'), 'The hub refused this token: log in again.');
    else say($('token-life'), entry.expiresAt ? `The token is good for ${span(left)}.` : '');
    say($('token-masked'), entry.token.length > 20 ? `${entry.token.slice(0, 6)}••••${entry.token.slice(-4)}` : '••••••');
  }

  async function copyToken() {
    const entry = token();
    if (!entry) return;
    let copied = false;
    try {
      await navigator.clipboard.writeText(entry.token);
      copied = true;
    } catch {
      // Without https there is no clipboard interface; the old command still works.
      const area = document.createElement('textarea');
      area.value = entry.token;
      area.className = 'off-screen';
      document.body.append(area);
      area.select();
      try {
        copied = document.execCommand('copy');
      } catch { /* said below */ }
      area.remove();
      $('token-copy').focus();
    }
    say($('token-note'), copied ? 'Copied.' : 'The browser does not let this page copy.');
  }

  async function signIn(action) {
    const username = $('username');
    const password = $('password');
    const problem = $('sign-in-problem');
    say(problem, '');
    fieldError(username, username.value.trim() ? '' : 'Enter a username.');
    fieldError(password, password.value ? '' : 'Enter a password.');
    if (!focusFirstFault(username, password)) return;
    if (!takeServer()) {
      $('server').focus();
      return;
    }
    const buttons = [$('login'), $('register')];
    if (buttons[0].getAttribute('aria-disabled') === 'true') return;
    // aria-disabled, not disabled: a disabled button would lose the keyboard's focus.
    for (const button of buttons) button.setAttribute('aria-disabled', 'true');
    const origin = server;
    try {
      const response = await fetch(`${origin}/auth/${action}`, {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ username: username.value.trim(), password: password.value }),
        signal: AbortSignal.timeout(SIGN_IN_WITHIN_MS),
      });
      const body = await response.json().catch(() => null);
      if (origin !== server) return;
      if (response.ok && body && typeof body.access_token === 'string') {
        password.value = '';
        keepToken({
          token: body.access_token,
          username: body.user && body.user.username ? String(body.user.username) : username.value.trim(),
          expiresAt: Number.isFinite(body.expires_in) ? Date.now() + body.expires_in * 1000 : null,
        });
        $('signed-in').focus();
        return;
      }
      showRefusal(action, response, body, { username, password });
    } catch {
      const found = await checkServer();
      say(problem, found.kind === 'ready' ? 'The hub did not answer this request in time. Try again.' : found.text);
    } finally {
      for (const button of buttons) button.removeAttribute('aria-disabled');
    }
  }

  function showRefusal(action, response, body, inputs) {
    const fields = body && body.fields && typeof body.fields === 'object' ? body.fields : {};
    for (const [name, input] of Object.entries(inputs)) {
      fieldError(input, Object.hasOwn(fields, name) ? sentence(fields[name]) : '');
    }
    let text = body && body.message ? sentence(body.message) : `The server answered with HTTP ${response.status} and no reason.`;
    if (response.status === 401) text += ' Is this your first visit? Then press Register.';
    if (response.status === 409) text += ' If it is yours, log in; otherwise choose another.';
    if (response.status === 429) {
      const after = Number(response.headers.get('Retry-After'));
      text += after > 0 ? ` Try again in ${span(after)}.` : ' Try again in a moment.';
    }
    say($('sign-in-problem'), text);
    focusFirstFault(inputs.username, inputs.password);
  }

  /** Moves the focus to the first field with a fault. Returns whether there is none. */
  function focusFirstFault(...inputs) {
    const faulty = inputs.find((input) => input.hasAttribute('aria-invalid'));
    if (faulty) faulty.focus();
    return !faulty;
  }

  function useToken() {
    const input = $('token');
    const pasted = input.value.trim().replace(/^Bearer\s+/i, '');
    fieldError(input, pasted ? '' : 'Paste a token first.');
    if (!focusFirstFault(input)) return;
    if (!takeServer()) {
      $('server').focus();
      return;
    }
    const { exp, username } = claims(pasted);
    input.value = '';
    say($('sign-in-problem'), '');
    keepToken({
      token: pasted,
      username: typeof username === 'string' ? username : null,
      expiresAt: Number.isFinite(exp) ? exp * 1000 : null,
    });
    $('signed-in').focus();
  }

  // ---- one client -----------------------------------------------------------------------------------------------------

  /** One card and the official client behind it. */
  class Client {
    constructor(number) {
      this.number = number;
      this.socket = null;
      /** Server, transport and token that `socket` was made with. */
      this.made = '';
      this.firstTransport = '';
      this.total = 0;
      this.failures = 0;
      this.refusal = null;
      const card = $('client-card').content.cloneNode(true).firstElementChild;
      card.querySelector('h3').textContent = `Client ${number}`;
      this.card = card;
      this.events = card.querySelector('.events');
      this.enter('idle');
    }

    part(name) {
      return this.card.querySelector(`[data-part="${name}"]`);
    }

    /** Goes to a state of: idle, connecting, connected, reconnecting, refused, disconnected. */
    enter(state, note = '') {
      this.state = state;
      this.card.dataset.state = state;
      say(this.card.querySelector('.state'), state === 'idle' ? 'not connected' : state);
      const line = this.card.querySelector('.note');
      line.hidden = !note;
      say(line, note);
      if (state !== 'connected') {
        for (const name of ['transport', 'roundtrip', 'instance', 'socket']) say(this.part(name), '–');
      }
    }

    open(io, key, options) {
      this.close();
      this.made = key;
      this.failures = 0;
      this.refusal = null;
      this.firstTransport = options.transports[0];
      this.enter('connecting');
      const socket = io(options.server + NAMESPACE, {
        forceNew: true,
        transports: options.transports,
        auth: (give) => give(options.token() ? { token: options.token() } : {}),
        reconnectionDelay: 500,
        reconnectionDelayMax: 3000,
        timeout: 10000,
      });
      this.socket = socket;
      // A socket that was replaced may still report; only the present one counts.
      const on = (emitter, name, handler) => emitter.on(name, (...args) => {
        if (this.socket === socket) handler(...args);
      });
      on(socket, 'connect', () => this.connected());
      on(socket, 'connect_error', (error) => this.failed(error));
      on(socket, 'disconnect', (reason) => this.lost(reason));
      on(socket.io, 'reconnect_attempt', (attempt) => {
        if (this.state !== 'connected') this.enter('reconnecting', `Trying again, attempt ${attempt}.`);
      });
      on(socket, 'instance', (info) => say(this.part('instance'), info && info.id ? String(info.id) : '–'));
      on(socket, 'test-event', (payload) => this.received(payload));
    }

    connected() {
      this.failures = 0;
      this.refusal = null;
      // The hub's `instance` may come in ahead of this event; entering `connected` leaves it alone.
      this.enter('connected');
      say(this.part('socket'), this.socket.id);
      const { engine } = this.socket.io;
      const showTransport = () => {
        if (!this.socket || this.socket.io.engine !== engine) return;
        const { name } = engine.transport;
        // The upgrade may have come before the namespace's answer.
        say(this.part('transport'), name === this.firstTransport ? name : `${name}, upgraded`);
      };
      showTransport();
      engine.on('upgrade', showTransport);
      this.measure();
      if (health.kind !== 'ready') checkServer({ quietly: true });
      renderConnection();
    }

    failed(error) {
      const code = error && error.data && error.data.code;
      // Not active: the namespace answered, and the client does not try again by itself.
      if (!this.socket.active) {
        this.refusal = REFUSALS[code]
          || `The hub refused the connection: ${sentence((error && error.message) || 'no reason given')}`;
        this.enter('refused', typeof code === 'string' ? `${error.message}: ${code}` : String(error && error.message));
        if (code === 'token_invalid' || code === 'token_expired') {
          tokenRefused = true;
          renderToken();
        }
      } else {
        this.failures += 1;
        if (this.state !== 'reconnecting') this.enter('reconnecting', 'No connection yet; trying again.');
        checkServer({ quietly: true });
      }
      renderConnection();
      judgeTrial();
    }

    lost(reason) {
      if (this.socket.active) {
        this.enter('reconnecting', reason === 'ping timeout' ? 'The hub fell silent; trying again.' : 'The connection was lost; trying again.');
        checkServer({ quietly: true });
      } else {
        this.enter('disconnected', reason === 'io server disconnect' ? 'The hub ended the connection.' : '');
      }
      renderConnection();
      judgeTrial();
    }

    refuseOrigin(why) {
      this.close();
      this.refusal = why;
      this.enter('refused', 'This page’s origin is not allowed.');
    }

    /** Ends the client for good; `open` makes a new one. */
    close() {
      const { socket } = this;
      this.socket = null;
      this.made = '';
      if (socket) socket.disconnect();
    }

    isConnected() {
      return this.state === 'connected';
    }

    /** Sends an echo and shows how long the way there and back took, or that the answer is not what was sent. */
    measure() {
      const { socket } = this;
      if (!socket || !socket.connected) return;
      const probe = { probe: randomId(), number: this.number, text: 'é ✓ 🙂', nested: [1, 2.5, null, { yes: true }] };
      const began = performance.now();
      socket.timeout(ANSWER_WITHIN_MS).emit('echo', probe, (error, reply) => {
        const took = performance.now() - began;
        if (this.socket !== socket || !socket.connected) return;
        if (error) say(this.part('roundtrip'), `none in ${ANSWER_WITHIN_MS / 1000} s`);
        else say(this.part('roundtrip'), isSame(probe, reply) ? milliseconds(took) : 'wrong answer');
      });
    }

    received(payload) {
      this.total += 1;
      say(this.card.querySelector('.total'), String(this.total));
      const item = document.createElement('li');
      const time = document.createElement('time');
      const now = new Date();
      time.dateTime = now.toISOString();
      time.textContent = clock(now);
      const code = document.createElement('code');
      code.textContent = show(payload);
      item.append(time, code);
      this.events.prepend(item);
      while (this.events.children.length > SHOWN_EVENTS) this.events.lastElementChild.remove();
      trialReceived(this, payload);
    }
  }

  // ---- all clients ----------------------------------------------------------------------------------------------------

  const clients = [];
  let isConnecting = false;
  /** What keeps "Connect all" from starting, in words. */
  let connectFault = '';

  function setCount(count) {
    while (clients.length > count) {
      const client = clients.pop();
      client.close();
      client.card.remove();
    }
    while (clients.length < count) {
      const client = new Client(clients.length + 1);
      clients.push(client);
      $('clients').append(client.card);
    }
    const select = $('sender');
    const chosen = Math.min(Number(select.value) || 1, count);
    select.replaceChildren(...clients.map(({ number }) => new Option(`Client ${number}`, String(number), false, number === chosen)));
    takeDefaultPayload();
    renderConnection();
  }

  /** Says what is wrong with the chosen number of clients, or ''. */
  function countFault() {
    const count = Number($('count').value);
    if (!Number.isInteger(count) || count < 1 || count > MAX_CLIENTS) return `Choose from 1 to ${MAX_CLIENTS} clients.`;
    if ($('transport').value === 'polling' && count > MAX_POLLING_CLIENTS && !server.startsWith('https:')) {
      return `With polling only, choose at most ${MAX_POLLING_CLIENTS} clients: a browser opens six connections to one server, and each client keeps one busy.`;
    }
    return '';
  }

  /** Takes the number of clients from the form. Returns whether it is one that works. */
  function takeCount() {
    const fault = countFault();
    fieldError($('count'), fault);
    if (!fault) setCount(Number($('count').value));
    return !fault;
  }

  /** The official client comes in two forms, and a hub speaks to one of them. */
  const BUNDLES = { json: 'socket.io.min.js', msgpack: 'socket.io.msgpack.min.js' };

  /** Clients that are loaded, or on their way, by parser. */
  const bundles = new Map();

  /** Where the client that the chosen hub needs is found; a page that a hub serves may use that hub's for any other. */
  const bundleUrl = () => `${ownHub || server}/socket.io/${BUNDLES[parser]}`;

  /** Loads the official client that the chosen hub needs. */
  function loadBundle() {
    const wanted = parser;
    if (!bundles.has(wanted)) {
      bundles.set(wanted, loadScript(bundleUrl()).catch((fault) => {
        bundles.delete(wanted);
        throw fault;
      }));
    }
    return bundles.get(wanted);
  }

  /** Runs a script that defines `io`, and returns that. */
  function loadScript(url) {
    return new Promise((resolve, reject) => {
      const script = document.createElement('script');
      script.src = url;
      const end = (settle, value) => {
        clearTimeout(timer);
        script.remove();
        settle(value);
      };
      const timer = setTimeout(() => end(reject, new Error('time-out')), 2 * ANSWER_WITHIN_MS);
      script.onload = () => {
        const { io } = window;
        // The other form's client takes the same name.
        delete window.io;
        if (io) end(resolve, io);
        else end(reject, new Error('no client in it'));
      };
      script.onerror = () => end(reject, new Error('not loaded'));
      document.head.append(script);
    });
  }

  async function connectAll() {
    if (isConnecting) return;
    connectFault = '';
    if (!takeServer()) {
      $('server').focus();
      return;
    }
    if (!takeCount()) {
      $('count').focus();
      return;
    }
    isConnecting = true;
    renderConnection();
    try {
      await checkServer();
      const io = await loadBundle();
      const origin = server;
      const mode = $('transport').value;
      const given = token() ? token().token : '';
      const key = JSON.stringify([origin, parser, mode, given]);
      for (const client of clients) {
        if (client.made === key && client.socket && client.socket.active) continue;
        client.open(io, key, {
          server: origin,
          transports: TRANSPORTS[mode].transports,
          // Read at every reconnect: a fresh log-in helps a client that is on its way back.
          token: () => { const entry = tokens.get(origin); return entry ? entry.token : ''; },
        });
      }
    } catch {
      const found = await checkServer();
      connectFault = ['ready', 'unready'].includes(found.kind)
        ? `The hub answers, but the Socket.IO client could not be loaded from ${bundleUrl()}. Build the hub with its client bundle (make run does), or check the network.`
        : found.text;
    } finally {
      isConnecting = false;
      renderConnection();
    }
  }

  function disconnectAll() {
    connectFault = '';
    for (const client of clients) {
      client.close();
      client.refusal = null;
      if (client.state !== 'idle') client.enter('disconnected', 'By you.');
    }
    renderConnection();
    judgeTrial();
  }

  /** Shows how many are connected, and in one sentence what keeps the others. */
  function renderConnection() {
    if (health.kind === 'origin') {
      for (const client of clients) if (client.state === 'reconnecting') client.refuseOrigin(health.text);
    }
    const connected = clients.filter((client) => client.isConnected());
    const busy = isConnecting || clients.some((client) => client.state === 'connecting');
    const isIdle = clients.every((client) => client.state === 'idle');
    const all = connected.length === clients.length && clients.length > 0;
    const tone = all ? 'good' : (busy || isIdle ? 'idle' : 'warn');
    if (isIdle && !isConnecting) answer($('connect-status'), '', 'idle');
    else answer($('connect-status'), `${connected.length} of ${clients.length} connected${busy && !all ? ' …' : '.'}`, tone);
    say($('connect-problem'), connectFault || connectionProblem());
  }

  function connectionProblem() {
    const refused = clients.find((client) => client.refusal);
    if (refused) return refused.refusal;
    const away = clients.filter((client) => client.state === 'reconnecting');
    if (!away.length) return '';
    if (health.kind === 'none') return `${health.text} The clients keep trying and come back by themselves.`;
    if (health.tone === 'bad') return health.text;
    // The hub answers plain requests: either it is just coming back, or something between stops the sockets.
    if (away.some((client) => client.failures > 2)) {
      return $('transport').value === 'websocket'
        ? 'The hub answers, but no WebSocket opens: a proxy between may not let WebSockets pass (try “Polling only”), or the hub takes no more clients (see “limits” in /readyz).'
        : 'The hub answers, but its Socket.IO endpoint does not: check what stands between this page and the hub, or whether it takes no more clients (see “limits” in /readyz).';
    }
    return 'The connection was lost. The clients keep trying and come back by themselves.';
  }

  // ---- one trial: an event sent, and who received it --------------------------------------------------------------------

  let trial = null;
  let ownPayload = false;

  const defaultPayload = () => `{"text":"Hello from client ${$('sender').value || 1}"}`;

  /** The default follows the sender until someone edits it. */
  function takeDefaultPayload() {
    if (!ownPayload) $('payload').value = defaultPayload();
  }

  /** Adds the proof (and the attachment) to an object of the user's, or wraps anything else. */
  function withProof(value, extra) {
    const isPlain = value !== null && typeof value === 'object' && !Array.isArray(value);
    const clashes = isPlain && Object.keys(extra).some((key) => Object.hasOwn(value, key));
    return isPlain && !clashes ? { ...value, ...extra } : { payload: value, ...extra };
  }

  function send() {
    const input = $('payload');
    let value;
    try {
      value = JSON.parse(input.value);
      fieldError(input, '');
    } catch (fault) {
      fieldError(input, `This is not JSON: ${sentence(fault.message)}`);
      input.focus();
      return;
    }
    const sender = clients[Number($('sender').value) - 1];
    if (!sender || !sender.isConnected()) {
      trial = null;
      const nobody = !clients.some((client) => client.isConnected());
      verdict('bad', 'Nothing was sent', nobody
        ? 'No client is connected. Press “Connect all clients” first.'
        : `Client ${sender.number} is not connected. Connect it, or let another client send.`);
      return;
    }
    const extra = { proof: randomId() };
    // An ArrayBuffer: in browsers, the official MessagePack parser makes a plain object of a typed array.
    if ($('binary').checked) extra.attachment = randomBytes(16).buffer;
    const sent = withProof(value, extra);
    const present = {
      proof: extra.proof,
      sent,
      sender,
      senderSocket: sender.socket.id,
      clients: clients.slice(),
      receipts: new Map(),
      began: performance.now(),
      isOver: false,
      ack: 'awaited',
    };
    trial = present;
    setTimeout(() => {
      present.isOver = true;
      if (trial === present) judgeTrial();
    }, VERDICT_AFTER_MS);
    sender.socket.timeout(VERDICT_AFTER_MS).emit('test-event', sent, (error) => {
      present.ack = error ? 'missing' : 'given';
      if (trial === present) judgeTrial();
    });
    judgeTrial();
  }

  function trialReceived(client, payload) {
    if (!trial || !payload || typeof payload !== 'object' || payload.proof !== trial.proof) return;
    const receipt = trial.receipts.get(client);
    if (receipt) {
      receipt.times += 1;
    } else {
      trial.receipts.set(client, {
        times: 1,
        after: performance.now() - trial.began,
        isSame: isSame(trial.sent, payload),
        instance: client.part('instance').textContent,
      });
    }
    judgeTrial();
  }

  /** Says who received the event of the present trial, and what is wrong with the others. */
  function judgeTrial() {
    if (!trial) return;
    const total = trial.clients.length;
    const missing = trial.clients.filter((client) => !trial.receipts.has(client));
    const line = `${total - missing.length} of ${total} received`;
    const receipts = [...trial.receipts.entries()];
    const twice = receipts.filter(([, receipt]) => receipt.times > 1).map(([client]) => client);
    const changed = receipts.filter(([, receipt]) => !receipt.isSame).map(([client]) => client);
    const faults = [];
    if (twice.length) faults.push(`${naming(twice)} received it more than once`);
    if (changed.length) faults.push(`${naming(changed)} received something else than was sent`);

    if (missing.length) {
      // Who is not connected cannot receive it any more: no need to wait for them.
      const awaited = missing.some((client) => client.isConnected());
      if (awaited && !trial.isOver) {
        verdict('idle', `${line} …`, 'Waiting for the others.');
        return;
      }
      const byState = new Map();
      for (const client of missing) byState.set(client.state, [...(byState.get(client.state) || []), client]);
      const reasons = [...byState].map(([state, group]) => {
        const they = group.length > 1 ? 'they are' : 'it is';
        const words = { idle: 'not connected', connected: 'connected all the same' }[state] || state;
        return `${naming(group)} did not, ${they} ${words}`;
      });
      let detail = faults.length ? sentence(faults.join('; ')) : '';
      if (!trial.sender.isConnected() || trial.sender.socket.id !== trial.senderSocket) {
        detail += ` Client ${trial.sender.number} lost its connection while it was sending. A message over the hub’s limit (MAX_HTTP_BUFFER_SIZE, 1 MB by default) ends the connection.`;
      } else if (trial.ack === 'missing') {
        detail += ' The hub did not acknowledge the event.';
      }
      verdict('bad', `${line} – ${reasons.join('; ')}`, detail.trim());
      return;
    }
    if (faults.length) {
      verdict('bad', `${line}, but not as it should be`, sentence(faults.join('; ')));
      return;
    }
    const last = Math.max(...receipts.map(([, receipt]) => receipt.after));
    const instances = [...new Set(receipts.map(([, receipt]) => receipt.instance))].filter((id) => id !== '–').sort();
    const where = instances.length ? `, on ${instances.length === 1 ? 'instance' : `${instances.length} instances:`} ${instances.join(', ')}` : '';
    const acked = { awaited: '', given: ' The hub acknowledged it.', missing: ' The hub did not acknowledge it.' }[trial.ack];
    verdict('good', line, `Unchanged, the last after ${milliseconds(last)}${where}.${acked}`);
  }

  function verdict(tone, line, detail) {
    $('verdict').dataset.tone = tone;
    say($('verdict-line'), line);
    say($('verdict-detail'), detail);
  }

  // ---- start ----------------------------------------------------------------------------------------------------------

  function onSubmit(id, action) {
    $(id).addEventListener('submit', (event) => {
      event.preventDefault();
      action();
    });
  }

  function renderTransportHint() {
    say($('transport-hint'), TRANSPORTS[$('transport').value].hint);
  }

  function listen() {
    onSubmit('server-form', () => (takeServer() ? checkServer() : $('server').focus()));
    $('server').addEventListener('input', editServer);
    onSubmit('account-form', () => signIn('login'));
    $('register').addEventListener('click', () => signIn('register'));
    onSubmit('token-form', useToken);
    $('token-copy').addEventListener('click', copyToken);
    $('token-forget').addEventListener('click', () => {
      keepToken(null);
      $('username').focus();
    });
    onSubmit('connect-form', connectAll);
    $('disconnect').addEventListener('click', disconnectAll);
    // Cards follow when the field is left; a fault is shown on connecting and goes while it is repaired (see editServer).
    $('count').addEventListener('input', () => { if (!countFault()) fieldError($('count'), ''); });
    $('count').addEventListener('change', () => { if (!countFault()) setCount(Number($('count').value)); });
    $('transport').addEventListener('change', () => {
      renderTransportHint();
      takeCount();
    });
    onSubmit('send-form', send);
    $('sender').addEventListener('change', takeDefaultPayload);
    $('payload').addEventListener('input', () => { ownPayload = $('payload').value !== defaultPayload(); });
    $('payload').addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        send();
      }
    });
    setInterval(() => { if (server && token()) renderToken(); }, 1000);
    setInterval(() => {
      if (!document.hidden) for (const client of clients) client.measure();
    }, ECHO_EVERY_MS);
    setInterval(() => { if (!document.hidden) checkServer({ quietly: true }); }, HEALTH_EVERY_MS);
  }

  /** The hub to begin with: the one that `?server=` names, else the one that serves this page, else the usual address. */
  async function chooseServer() {
    if (pageOrigin) {
      const found = await readyz(pageOrigin).catch(() => null);
      if (found && found.body) ownHub = pageOrigin;
    }
    const input = $('server');
    if (server || input.value) return;
    input.value = new URLSearchParams(location.search).get('server') || ownHub || DEFAULT_SERVER;
    if (takeServer()) await checkServer();
  }

  setCount(Number($('count').value) || 3);
  renderTransportHint();
  listen();
  chooseServer();
})();
