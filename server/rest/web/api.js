// What the page says to the API: one streamed generation, and errors as the server words them.

export const NO_ANSWER = 'The server does not answer.';

// The server's own message where it sent one.
async function messageOf(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error.message;
  } catch {
    return `HTTP ${response.status} ${response.statusText}`.trim();
  }
}

function headersWith(apiKey) {
  return apiKey ? { Authorization: `Bearer ${apiKey}` } : {};
}

// The `data:` of server-sent events, in order.
async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split('\n\n');
    rest = events.pop();
    for (const event of events) if (event.startsWith('data: ')) yield event.slice(6);
  }
}

// Posts `body` as a stream to `path` and calls onText for each piece of text. Returns the finish reason, the usage, and
// the times of request, first and last text in ms; throws Error with what to show, or AbortError after signal.abort().
export async function generate(path, body, apiKey, signal, onText) {
  const result = { finish: null, usage: null, sent: performance.now(), first: null, last: null };
  let response;
  try {
    response = await fetch(path, {
      method: 'POST', signal, cache: 'no-store',
      headers: { 'Content-Type': 'application/json', ...headersWith(apiKey) },
      body: JSON.stringify({ ...body, stream: true, stream_options: { include_usage: true } }),
    });
  } catch (error) {
    throw error.name === 'AbortError' ? error : new Error(NO_ANSWER);
  }
  if (!response.ok) throw new Error(await messageOf(response));
  for await (const data of eventsOf(response.body)) {
    if (data === '[DONE]') return result;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Error(chunk.error.message);
    for (const choice of chunk.choices) {
      const text = choice.delta ? choice.delta.content : choice.text;
      if (text) {
        result.last = performance.now();
        result.first ??= result.last;
        onText(text);
      }
      result.finish = choice.finish_reason ?? result.finish;
    }
    result.usage = chunk.usage ?? result.usage;
  }
  throw new Error('The server broke off.');
}

// Why the server takes no requests; null when it does.
export async function whyNotReady() {
  try {
    const response = await fetch('readyz', { cache: 'no-store' });
    return response.ok ? null : await messageOf(response);
  } catch {
    return NO_ANSWER;
  }
}

// The models that the server tells of; `needsKey`: it tells of them only to those with another key.
export async function models(apiKey) {
  try {
    const response = await fetch('v1/models', { headers: headersWith(apiKey), cache: 'no-store' });
    return { needsKey: response.status === 401, list: response.ok ? (await response.json()).data : [] };
  } catch {
    return { needsKey: false, list: [] };
  }
}
