// Chat and completion: a form whose request is streamed into a transcript. Whatever comes from the model or the server
// enters the document as text nodes alone.
import { generate } from './api.js';
import { showModel, watch } from './load.js';
import { $, amount, append, duration } from './text.js';

// Adds to a transcript and stays at its end, unless the reader has scrolled back.
function scrolled(transcript, change) {
  const atEnd = transcript.scrollHeight - transcript.scrollTop - transcript.clientHeight < 40;
  change();
  if (atEnd) transcript.scrollTop = transcript.scrollHeight;
}

function parameters() {
  const body = {};
  for (const name of ['max_tokens', 'temperature', 'top_p', 'top_k', 'seed']) {
    if ($(name).value !== '') body[name] = Number($(name).value);
  }
  const escapes = { n: '\n', t: '\t', '\\': '\\' };
  const stop = $('stops').value.split('\n').filter(line => line !== '')
    .map(line => line.replace(/\\([nt\\])/g, (_, c) => escapes[c]));
  if (stop.length > 0) body.stop = stop;
  return body;
}

// Each kind of request begins a turn: the fields that it adds to the body, what to do with text, and with the end:
// `ending` is the finish reason, 'stopped' or 'failed'.
const conversation = [];  // [{ role, content }] of the turns that were answered, and of the one that runs
const kinds = {
  chat: {
    path: 'v1/chat/completions', transcript: $('messages'), input: $('message'),
    begin() {
      const asked = $('message').value, system = $('system').value.trim();
      if (asked.trim() === '') return null;
      const question = append($('messages'), 'p', 'bubble user', asked);
      const answer = append($('messages'), 'p', 'bubble assistant');
      const text = answer.appendChild(new Text());
      $('messages').scrollTop = $('messages').scrollHeight;
      $('message').value = '';
      conversation.push({ role: 'user', content: asked });
      return {
        fields: { messages: [...(system ? [{ role: 'system', content: system }] : []), ...conversation] },
        // A template may leave the blank after "assistant:" to the model.
        onText: more => { text.data = (text.data + more).trimStart(); },
        end(ending) {
          if (text.data === '' && (ending === 'stopped' || ending === 'failed')) {  // a turn without answer is taken back
            conversation.pop();
            question.remove();
            answer.remove();
            $('message').value ||= asked;
            return;
          }
          conversation.push({ role: 'assistant', content: text.data });
          const notes = { length: 'ended at the token limit', stopped: 'stopped', failed: 'broken off' };
          const note = notes[ending] ?? (text.data === '' ? 'ended without text' : '');
          if (note) append(answer, 'small', '', note);
        },
      };
    },
    clear() { conversation.length = 0; },
  },
  completion: {
    path: 'v1/completions', transcript: $('output'), input: $('prompt'),
    begin() {
      const prompt = $('prompt').value;
      $('output').replaceChildren(prompt);
      const text = append($('output'), 'mark', '').appendChild(new Text());
      return { fields: { prompt }, onText: more => text.appendData(more), end() {} };
    },
    clear() {},
  },
};

let kind = kinds.chat;
let running = null;  // the AbortController of the request that runs

function showError(message) {
  $('error').textContent = message;
  $('error').hidden = message === '';
}

function usageText({ usage, sent, first, last }) {
  if (!usage) return '';
  const count = usage.completion_tokens, seconds = (last - first) / 1000;
  const cached = usage.prompt_tokens_details?.cached_tokens;
  return `${usage.prompt_tokens}${cached ? ` (${cached} cached)` : ''} + ${count} tokens` +
    (first === null ? '' : `, first after ${duration((first - sent) / 1000)}`) +
    (count > 1 && seconds > 0 ? `, then ${amount((count - 1) / seconds)}/s` : '');
}

function setRunning(controller) {
  running = controller;
  $('send').setAttribute('aria-disabled', String(running !== null));  // not disabled: that would lose the focus
  $('stop').disabled = running === null;
  $('clear').disabled = running !== null;
  kind.transcript.setAttribute('aria-busy', String(running !== null));
}

async function send() {
  const { transcript, path, input } = kind;
  const turn = kind.begin();
  if (turn === null) return input.focus();
  showError('');
  $('usage').textContent = '';
  setRunning(new AbortController());
  for (const tab of tabs) tab.disabled = true;
  try {
    const result = await generate(path, { ...turn.fields, ...parameters() }, $('api_key').value, running.signal,
      more => scrolled(transcript, () => turn.onText(more)));
    scrolled(transcript, () => turn.end(result.finish));
    $('usage').textContent = usageText(result);
  } catch (error) {
    const stopped = error.name === 'AbortError';
    scrolled(transcript, () => turn.end(stopped ? 'stopped' : 'failed'));
    if (!stopped) showError(error.message);
  }
  const hadFocus = document.activeElement === $('stop');
  setRunning(null);
  for (const tab of tabs) tab.disabled = false;
  if (hadFocus) input.focus();
}

const tabs = [$('chat_tab'), $('completion_tab')];

function choose(name) {
  kind = kinds[name];
  for (const tab of tabs) {
    const chosen = tab.id === `${name}_tab`;
    tab.setAttribute('aria-selected', String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    $(tab.getAttribute('aria-controls')).hidden = !chosen;
  }
  showError('');
  $('usage').textContent = '';
  history.replaceState(null, '', name === 'chat' ? '#' : `#${name}`);  // a reload stays where it was
}

for (const [i, tab] of tabs.entries()) {
  tab.addEventListener('click', () => choose(tab.getAttribute('aria-controls')));
  tab.addEventListener('keydown', event => {
    if (event.key !== 'ArrowLeft' && event.key !== 'ArrowRight') return;
    tabs[1 - i].click();
    tabs[1 - i].focus();
  });
}
$('form').addEventListener('submit', event => {
  event.preventDefault();
  if (!running) send();
});
$('form').addEventListener('keydown', event => {
  if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    $('form').requestSubmit();
  }
});
$('stop').addEventListener('click', () => running?.abort());
$('clear').addEventListener('click', () => {
  kind.clear();
  kind.transcript.replaceChildren();
  showError('');
  $('usage').textContent = '';
  kind.input.focus();
});
// The key stays with this tab and is gone with it.
$('api_key').value = sessionStorage.getItem('api_key') ?? '';
$('api_key').addEventListener('change', () => {
  sessionStorage.setItem('api_key', $('api_key').value);
  showModel();
});

choose(location.hash === '#completion' ? 'completion' : 'chat');
watch();
