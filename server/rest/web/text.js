// Text into the document, and numbers into text.

export const $ = id => document.getElementById(id);

export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;  // a live region speaks only of changes
}

export function append(parent, tag, className, text = '') {
  const element = document.createElement(tag);
  element.className = className;
  element.append(text);
  parent.append(element);
  return element;
}

export const amount = value => value.toLocaleString('en', { maximumSignificantDigits: 3 });
export const percent = value => `${amount(100 * value)} %`;
export const duration = seconds => (seconds < 1 ? `${amount(1000 * seconds)} ms` : `${amount(seconds)} s`);
