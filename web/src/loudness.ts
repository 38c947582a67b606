/** Levels at which an edit that the server does not have yet is as loud as the original. */

import { maskOf, post, type Edit, type Levels, type Session } from "./api";

interface Table {
  amounts: number[];
  levels: Levels[];
}

const MOST_DB = 30; // of the difference, which is lifted no further

export class LevelTable {
  private table: Table | null = null;
  private of = ""; // edit of the table, without its amount
  private wanted: Edit | null = null;
  private asking = false;

  constructor(
    private session: Session,
    /** The levels of the edit that was asked for last arrived. */
    private arrived: () => void,
  ) {}

  /** Returns the levels of an edit, of a similar one until they arrive, or null. */
  at(edit: Edit): Levels | null {
    this.wanted = edit;
    if (this.key(edit) !== this.of) void this.ask();
    return this.table && interpolated(this.table, edit.amount);
  }

  private key({ amount: _, ...rest }: Edit): string {
    const { state } = this.session;
    return `${maskOf(state)} ${state.part?.seconds} ${JSON.stringify(rest)}`;
  }

  private async ask(): Promise<void> {
    if (this.asking) return;
    this.asking = true;
    try {
      while (this.wanted && this.key(this.wanted) !== this.of) {
        const key = this.key(this.wanted);
        const found = maskOf(this.session.state);
        const query = found === null ? "" : `?found=${found}`;
        this.table = await post<Table>(`/sessions/${this.session.id}/levels${query}`, this.wanted);
        this.of = key;
        this.arrived();
      }
    } catch {
      // The levels stay those of the edit before, until the next change.
    } finally {
      this.asking = false;
    }
  }
}

function interpolated({ amounts, levels }: Table, amount: number): Levels {
  const last = amounts.length - 2;
  const low = Math.max(0, Math.min(last, amounts.findIndex((at) => at > amount) - 1));
  const place = amount >= amounts[last + 1] ? last : low;
  const share = (amount - amounts[place]) / (amounts[place + 1] - amounts[place]);
  const between = (a: number, b: number) => a + share * (b - a);
  const [a, b] = [levels[place], levels[place + 1]];
  // A small difference is proportional to the amount; only what is beside that is interpolated.
  const size = (at: number) => 20 * Math.log10(Math.max(Math.abs(at), 1e-3));
  const difference =
    amounts[place] === 0 ? b.difference_db + size(amounts[place + 1]) - size(amount)
    : amounts[place + 1] === 0 ? a.difference_db + size(amounts[place]) - size(amount)
    : between(a.difference_db + size(amounts[place]), b.difference_db + size(amounts[place + 1])) - size(amount);
  return {
    input_db: between(a.input_db, b.input_db),
    output_db: between(a.output_db, b.output_db),
    difference_db: amount === 0 ? 0 : Math.max(-MOST_DB, Math.min(MOST_DB, difference)),
    held: (share < 0.5 ? a : b).held,
    exact: amount === 0,
  };
}
