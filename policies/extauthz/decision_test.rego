package extauthz_test

import data.extauthz
import data.extauthz.base

test_decision_is_the_built_in_one if {
	every answer in [{"allowed": true}, {"allowed": false, "reason": "no_route"}] {
		extauthz.decision == answer with base.decision as answer
	}
}
