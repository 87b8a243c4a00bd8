"""The table `answered`: what the letters of every answer say, looked at once for several sections."""

from __future__ import annotations

LONGEST = 300
"""Tokens of an answer that the presets train on (max_answer_tokens); more lose their end."""
GARBLED = (
    r"[\x{C2}\x{C3}][\x{80}-\x{BF}]|\x{E2}(\x{20AC}|[\x{80}-\x{9F}])"
    r"|[\x{E3}-\x{E9}][\x{80}-\x{9F}\x{A1}-\x{BF}]{2}"
)
"""UTF-8 read as Latin-1 or as Windows has it: the first byte of a letter, then bytes that only go on with one."""
SCRIPTS = {
    "Kana": r"\p{Hiragana}\p{Katakana}",
    "Hangul": r"\p{Hangul}",
    "Han": r"\p{Han}",
    "Cyrillic": r"\p{Cyrillic}",
    "Greek": r"\p{Greek}",
    "Arabic": r"\p{Arabic}",
    "Hebrew": r"\p{Hebrew}",
    "Devanagari": r"\p{Devanagari}",
    "Thai": r"\p{Thai}",
    "Latin": r"\p{Latin}",
}
"""Scripts in the order in which they are looked for: the first that a text has a letter of is its script."""
PAIRS = (
    "\u8fd9\u9019\u4eec\u5011\u6765\u4f86\u56fd\u570b\u65f6\u6642\u8bf4\u8aaa\u5bf9\u5c0d\u4f1a\u6703"
    "\u8fc7\u904e\u53d1\u767c\u7ecf\u7d93\u5173\u95dc\u5f00\u958b\u95ee\u554f\u65e0\u7121\u8fd8\u9084"
    "\u4e1c\u6771\u8f66\u8eca\u957f\u9577\u95e8\u9580\u9a6c\u99ac\u9e1f\u9ce5\u9c7c\u9b5a\u9f99\u9f8d"
    "\u5b66\u5b78\u89c1\u898b\u8bdd\u8a71\u8ba9\u8b93\u8bb0\u8a18\u8fdb\u9032\u52a8\u52d5\u673a\u6a5f"
    "\u7535\u96fb\u73b0\u73fe\u5b9e\u5be6\u4e66\u66f8\u5934\u982d\u4e1a\u696d\u4e2a\u500b\u6837\u6a23"
)
"""Frequent characters that were simplified, each before its traditional form; a text has those of one form only."""
SIMPLIFIED_ONLY, TRADITIONAL_ONLY = PAIRS[0::2], PAIRS[1::2]


def script(column: str) -> str:
    """Return the SQL for the script of a text; empty if it has no letter of these."""
    tests = " ".join(f"when regexp_matches({column}, '[{signs}]') then '{name}'" for name, signs in SCRIPTS.items())
    return (
        f"case when strlen({column}) = length({column})\n"
        f"         then case when ascii({column}) between 97 and 122 or regexp_matches({column}, '[A-Za-z]') "
        f"then 'Latin' else '' end\n"
        f"         {tests} else '' end"
    )


ANSWERED = rf"""
-- what the letters of every answer say, a row each; an instruction without an answer has one row without words
create type task_name as enum (select distinct unnest(tasks) as name from samples order by name);
create type corpus_name as enum (select distinct corpus from samples order by corpus);
create type language_name as enum (select distinct language from samples order by language);
create type script_name as enum ('', {", ".join(f"'{name}'" for name in SCRIPTS)});
create type form_name as enum ('', 'simplified', 'traditional', 'both');
create table answered as
with asked as (
  select corpus, language, samples, unnest(tasks) as task, unnest(prompts) as prompt, unnest(answers) as answers
  from samples),
said as (
  select corpus, language, samples, task, prompt, {script("prompt")} as asked,
         unnest(answers) as answer, unnest(range(greatest(len(answers), 1))) = 0 as first
  from asked),
-- one look at every letter: only answers with one of these can have tags, control characters or garbled ones, and
-- what may stand in JSON as it is has no control character but the last
looked as (
  select *, strlen(answer) = length(answer) as plain,
    case when strlen(answer) = length(answer) and json_valid('"' || answer || '"')
         then contains(answer, '<') or contains(answer, E'\x7F')
         else regexp_matches(answer, '[\x00-\x1F\x7F<\x{{C2}}\x{{C3}}\x{{E2}}-\x{{E9}}\x{{FFFD}}]') end as odd
  from said),
cut as (
  select *, string_split(case when odd then translate(answer, E'\t\n\f\r', '    ') else answer end, ' ') as pieces,
         len(pieces) // 2 as middle, task = 'asr' and first and samples > 0 as heard,
         case when not heard then null when plain then answer <> upper(answer)
              else regexp_matches(answer, '\p{{Ll}}') end as small,
         case when not heard then null when plain then answer <> lower(answer)
              else regexp_matches(answer, '\p{{Lu}}') end as large
  from looked)
select task::task_name as task, corpus::corpus_name as corpus, language::language_name as language, first,
  hash(task, answer) as code,
  case when answer = '' or odd or contains(answer, '  ') or starts_with(answer, ' ') or ends_with(answer, ' ')
       then len(list_filter(pieces, lambda piece: piece <> '')) else len(pieces) end::uinteger as words,
  (strlen(answer) + 2) // 3 > {LONGEST} as long,
  case when odd then regexp_matches(answer, '<[A-Z]+>') else false end as tagged,
  case when odd then regexp_matches(answer, '[\x00-\x08\x0B\x0E-\x1F\x7F\x{{FFFD}}]') else false end as broken,
  case when odd then regexp_matches(answer, '{GARBLED}') else false end as garbled,
  case when len(pieces) >= 8 and (
         pieces[middle] = pieces[middle + 1] or pieces[middle] = pieces[middle + 2]
         or pieces[middle] = pieces[middle + 3] or pieces[middle] = pieces[middle + 4]
         or pieces[middle] = pieces[middle - 1] or pieces[middle] = pieces[middle - 2]
         or pieces[middle] = pieces[middle - 3] or pieces[middle] = pieces[middle - 4])
       then 2 * len(list_filter(pieces, lambda piece, place: piece = pieces[place + 1] or piece = pieces[place + 2]
                                                          or piece = pieces[place + 3] or piece = pieces[place + 4]))
            > len(pieces) else false end as repeating,
  case when strlen(answer) between 20 and strlen(prompt) and len(pieces) >= 4
       then contains(lower(prompt), lower(answer)) else false end as leaked,
  case when heard then (length(answer) * 16000.0 / samples)::float end as pace,
  case when not heard then null when large and not small then 'upper' when small and not large then 'lower'
       when small and large and not regexp_matches(answer, '(?s)^.+\p{{Lu}}') then 'sentence' else ''
       end as letters,
  case when heard then regexp_matches(answer, '[.,;:?!\x{{3001}}\x{{3002}}\x{{FF0C}}\x{{FF1F}}]') end as punctuated,
  asked::script_name as asked,
  ({script("answer")})::script_name as script,
  (case when plain then ''
        when script <> 'Han' then ''
        when regexp_matches(answer, '[{SIMPLIFIED_ONLY}]')
        then case when regexp_matches(answer, '[{TRADITIONAL_ONLY}]') then 'both' else 'simplified' end
        when regexp_matches(answer, '[{TRADITIONAL_ONLY}]') then 'traditional' else '' end)::form_name as form
from cut;""".strip()
