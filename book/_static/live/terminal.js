// Text as a terminal shows it: progress bars go back to the start of a line, or some lines up.

const PIECE = /\x1b\[([0-9;?]*)([A-Za-z])|[\r\n\b]|[^\x1b\r\n\b]+|\x1b/g;
const MAX_LINES = 5000;

export class Terminal {
  #lines = [''];
  #row = 0;
  #column = 0;

  write(text) {
    for (const [piece, argument, command] of text.matchAll(PIECE)) {
      if (command) this.#control(command, Number(argument.split(';')[0]) || 0);
      else if (piece === '\n') this.#move(this.#row + 1, 0);
      else if (piece === '\r') this.#column = 0;
      else if (piece === '\b') this.#column = Math.max(0, this.#column - 1);
      else if (piece !== '\x1b') this.#put(piece);
    }
  }

  // The lines; of very many, the last ones.
  get text() {
    const lost = this.#lines.length - MAX_LINES;
    if (lost <= 0) return this.#lines.join('\n');
    return `[${lost} earlier lines are not shown]\n${this.#lines.slice(lost).join('\n')}`;
  }

  #put(piece) {
    const line = this.#lines[this.#row].padEnd(this.#column);
    const end = this.#column + piece.length;
    this.#lines[this.#row] = line.slice(0, this.#column) + piece + line.slice(end);
    this.#column = end;
  }

  #move(row, column) {
    this.#row = Math.max(0, row);
    this.#column = column;
    while (this.#lines.length <= this.#row) this.#lines.push('');
  }

  // ECMA-48: cursor up, down; erase the rest of the screen or of the line. Colours are left out.
  #control(command, n) {
    if (command === 'A') this.#move(this.#row - (n || 1), this.#column);
    else if (command === 'B') this.#move(this.#row + (n || 1), this.#column);
    else if (command === 'K') this.#erase(n);
    else if (command === 'J') {
      this.#lines.length = this.#row + 1;
      this.#erase(0);
    }
  }

  #erase(n) {
    const line = this.#lines[this.#row];
    this.#lines[this.#row] = n === 2 ? '' : line.slice(0, this.#column);
  }
}
