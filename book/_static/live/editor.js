// A cell's code as a text editor: CodeMirror with Python's colours and indentation.

import {defaultKeymap, history, historyKeymap, indentWithTab} from '@codemirror/commands';
import {python} from '@codemirror/lang-python';
import {bracketMatching, indentOnInput, indentUnit, syntaxHighlighting} from '@codemirror/language';
import {EditorState} from '@codemirror/state';
import {EditorView, drawSelection, highlightSpecialChars, keymap} from '@codemirror/view';
import {classHighlighter} from '@lezer/highlight';

// parent: element to stand in; label: what a screen reader says; on: {change(text), run(next),
// leave()}. Shift+Enter runs and goes on, Ctrl+Enter runs, Escape leaves: so Tab is no trap.
export function openEditor(parent, text, label, on) {
  const does = action => () => {
    action();
    return true;
  };
  const keys = [
    {key: 'Shift-Enter', run: does(() => on.run(true))},
    {key: 'Mod-Enter', run: does(() => on.run(false))},
    {key: 'Escape', run: does(on.leave)},
    indentWithTab,
    ...defaultKeymap,
    ...historyKeymap,
  ];
  const extensions = [
    keymap.of(keys),
    history(),
    python(),
    indentUnit.of('    '),
    EditorState.tabSize.of(4),
    indentOnInput(),
    bracketMatching(),
    drawSelection(),
    highlightSpecialChars(),
    syntaxHighlighting(classHighlighter),
    EditorView.contentAttributes.of({'aria-label': label, spellcheck: 'false', tabindex: '0'}),
    EditorView.updateListener.of(update => {
      if (update.docChanged) on.change(update.state.doc.toString());
    }),
  ];
  const view = new EditorView({parent, state: EditorState.create({doc: text, extensions})});
  return {
    focus: () => view.focus(),
    close: () => view.destroy(),
    // Put the caret where the mouse was.
    focusAt({clientX, clientY}) {
      const place = view.posAtCoords({x: clientX, y: clientY});
      if (place != null) view.dispatch({selection: {anchor: place}});
      view.focus();
    },
  };
}
