interface Person {
  name: string;
  titles?: readonly string[];
}

type Greeting = { text: string; words: number };

/** Says hello. */
export function hello(name: string = 'world', excited: boolean = false): string {
  return `Hello, ${name}${excited ? '!' : '.'}`;
}

/** Greets a person with all titles. */
export async function greet(person: Person): Promise<Greeting> {
  const text = hello([...(person.titles ?? []), person.name].join(' '));
  return { text, words: text.split(' ').length } satisfies Greeting;
}
