// The phrases that CONTRIBUTING.md bans, each with the reason that lint prints.

/** @typedef {{ pattern: RegExp, reason: string }} Phrase */

const PERSON = 'code is not a person';

/**
 * Phrases to look for in each sentence. A phrase belongs here if nearly every match is a mistake.
 *
 * @type {readonly Phrase[]}
 */
export const PHRASES = [
  // Grammar.
  {
    pattern:
      /(?<!\bthere )\b(?:is|are|was|were) no\b(?! (?:longer|more|less|fewer|other|greater|larger|smaller|better|faster)\b)/i,
    reason: 'write "is not a"',
  },
  { pattern: /\b(?:can't|cannot|can) be had\b/i, reason: 'write "is not available", or name the failure' },
  { pattern: /\bwhat there is not\b/i, reason: 'name the thing that is missing' },
  { pattern: /\b(?:that )?of which\b/i, reason: 'write "whose", or two sentences' },
  { pattern: /\bwho(?:m)?ever\b/i, reason: 'name the caller or the owner' },
  { pattern: /^(?:What|Who|Which)\b(?!.*\?)/, reason: 'begin with a noun of the field' },
  {
    pattern: /^Where\b[^,?]*, (?:the|an?|it|its|they|this|these|that|all|no|each|nothing|nobody|X)\b/,
    reason: 'write "if" or "when" for a condition',
  },
  { pattern: /\bfor good\b/i, reason: 'write "permanently"' },
  // Persons' verbs.
  { pattern: /\b(?:tells?|told|telling)\b/i, reason: `${PERSON}: write "reports" or "returns"` },
  { pattern: /\bsays\b/i, reason: `${PERSON}: write "states", "reports" or "returns"` },
  { pattern: /\b(?:hears?|heard)\b/i, reason: `${PERSON}: write "receives"` },
  { pattern: /\bwants\b/i, reason: `${PERSON}: write "requires"` },
  { pattern: /\bknows\b/i, reason: `${PERSON}: write "records" or "holds"` },
  { pattern: /\b(?:learns?|learnt|learned)\b/i, reason: `${PERSON}: write "reads" or "receives"` },
  { pattern: /\b(?:forgets?|forgot|forgotten)\b/i, reason: `${PERSON}: write "removes" or "leaves open"` },
  { pattern: /\b(?:gives?|gave|given|giving)(?: \w+)?(?: \w+)? back\b/i, reason: 'write "releases" or "returns"' },
  {
    pattern: /\b(?:takes?|took|taken|taking)(?: \w+)? a look\b|\ba look at\b/i,
    reason: `${PERSON}: write "reads" or "checks"`,
  },
  { pattern: /\b(?:minds|remembers?|notices|likes|thinks|believes)\b/i, reason: `${PERSON}: name the operation` },
  // Terms.
  { pattern: /\b(?:lends?|lent|lending|loans?)\b/i, reason: 'the term is "lease"' },
  { pattern: /\bmade[- ]up\b/i, reason: 'the term is "fake", "stub" or "fixture"' },
  { pattern: /\bvoid (?:mappings?|ranges?|sub-mappings?)\b/i, reason: 'the term is "revoked"' },
  { pattern: /\bpartings?\b/i, reason: 'the term is "divergence"' },
];
